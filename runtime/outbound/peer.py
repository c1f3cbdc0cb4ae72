"""A peer: one server of a deployment, and the connections to it that its exchanges share."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache

from runtime.core.deployments import HttpVersion
from runtime.outbound.address import Address
from runtime.outbound.connection import Connection, PeerLimits
from runtime.outbound.exchange import Exchange, Header, Listener
from runtime.outbound.faults import (
    ConnectionLost,
    Crowded,
    OutboundError,
    Shut,
    Silent,
    Unreachable,
    UntrustedServer,
    WrongProtocol,
)
from runtime.outbound.guard import Guard
from runtime.outbound.http2 import Http2Connection
from runtime.outbound.http11 import Http11Connection
from runtime.outbound.identity import Identity

USER_AGENT = "perdure"


class Peer:
    """Opens exchanges with one server, and connections when they are needed.

    Every connection asks the guard anew. With HTTP/2 exchanges share connections, as many on each as the server allows;
    with HTTP/1.1 each has one for itself.
    """

    def __init__(
        self,
        url: str,
        *,
        http: HttpVersion,
        guard: Guard,
        headers: Mapping[str, str] | None = None,
        identity: Identity | None = None,
        limits: PeerLimits | None = None,
    ) -> None:
        """Raises BadAddress."""
        self.address = Address.parse(url)
        self._http = http
        self._guard = guard
        self._identity = identity
        self._limits = limits or PeerLimits()
        self._said: tuple[Header, ...] = (
            (":scheme", self.address.scheme),
            (":authority", self.address.authority),
            ("user-agent", USER_AGENT),
            *((name.lower(), value) for name, value in (headers or {}).items()),
        )
        self._connections: dict[Connection, None] = {}
        self._waiting: deque[tuple[float, Exchange]] = deque()
        self._dialling: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._is_closed = False

    def open(self, method: str, path: str, headers: Sequence[Header], listener: Listener) -> Exchange:
        """Begin a request; `path` comes after that of the peer's URL. Names of headers are in lower case.

        Never waits, and never raises: what fails is told to the listener.
        """
        whole = self.address.path + path
        signature = self._identity.sign(path) if self._identity is not None else ()
        said = [(":method", method), (":path", whole), *self._said, *headers, *signature]
        exchange = Exchange(method, whole, said, listener, self)
        connection = min(self._connections, key=_load, default=None)
        if connection is not None and connection.room > 0 and not self._should_spread(connection):
            connection.start(exchange)
            return exchange
        loop = asyncio.get_running_loop()
        if self._is_closed:
            loop.call_soon(exchange.lost, Shut(f"{self.address.url} is no longer asked."))
            return exchange
        self._waiting.append((loop.time() + self._limits.wait, exchange))
        self._set_alarm(loop)
        self._dial(loop)
        if connection is not None:
            self._serve()
        return exchange

    async def close(self) -> None:
        """End all that is under way."""
        self._is_closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        shut = Shut(f"{self.address.url} is no longer asked.")
        for task in self._dialling:
            task.cancel()
        await asyncio.gather(*self._dialling, return_exceptions=True)
        connections = list(self._connections)
        for connection in connections:
            connection.close(shut)
        self._lose_waiting(shut)
        await asyncio.sleep(0)  # for their last words
        for connection in connections:
            connection.abort()

    # As the carrier of what waits for a connection. ------------------------------------------------------------------

    def wake(self, exchange: Exchange) -> None:
        """What is to be sent waits with it."""

    def drop(self, exchange: Exchange) -> None:
        """It is passed over when its turn comes."""

    def consumed(self, exchange: Exchange, size: int) -> None:
        """Nothing has come yet."""

    # As the owner of connections. ------------------------------------------------------------------------------------

    def freed(self, connection: Connection) -> None:
        if self._waiting:
            self._serve()

    def gone(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if self._waiting and not self._is_closed:
            self._dial(asyncio.get_running_loop())

    def again(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        exchange.carrier = self
        self._waiting.appendleft((loop.time() + self._limits.wait, exchange))
        self._dial(loop)
        self._serve()

    # Giving out. -----------------------------------------------------------------------------------------------------

    def _should_spread(self, connection: Connection) -> bool:
        """Whether the least loaded connection has enough to do for another one to be opened."""
        limits = self._limits
        return connection.load >= limits.spread and len(self._connections) < limits.spread_over

    def _serve(self) -> None:
        """Put what waits on connections, the first first."""
        while self._waiting:
            if self._waiting[0][1].is_over:
                self._waiting.popleft()
                continue
            connection = min(self._connections, key=_load, default=None)
            if connection is None or connection.room <= 0:
                return
            _, exchange = self._waiting.popleft()
            connection.start(exchange)

    def _dial(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open as many connections as what waits needs."""
        if self._is_closed:
            return
        is_old = self._http is HttpVersion.HTTP_1_1
        most = self._limits.connections_11 if is_old else self._limits.connections
        for _ in range(min(self._missing(), most - len(self._dialling) - len(self._connections))):
            task = loop.create_task(self._connect())
            self._dialling.add(task)
            task.add_done_callback(self._dialling.discard)

    def _missing(self) -> int:
        """How many more connections are wanted than there are, or will be in a moment."""
        limits, waiting = self._limits, len(self._waiting)
        if self._http is HttpVersion.HTTP_1_1:
            return waiting - len(self._dialling)
        load = waiting + sum(connection.load for connection in self._connections)
        wanted = max(min(-(-load // limits.spread), limits.spread_over), -(-load // limits.streams))
        missing = wanted - len(self._connections) - len(self._dialling)
        # A server may allow fewer streams than we would open.
        return max(missing, 1 if waiting and not self._dialling else 0)

    async def _connect(self) -> None:
        try:
            try:
                async with asyncio.timeout(self._limits.connect):
                    connection = await self._reach()
            except TimeoutError:
                raise Silent(f"{self.address.url} has not answered within {self._limits.connect:g} s.") from None
            if connection.ending is not None:  # in the moment since it was open
                raise connection.ending
        except OutboundError as error:
            if not self._connections:
                self._lose_waiting(error)
            return
        finally:
            self._dialling.discard(asyncio.current_task())
        self._connections[connection] = None
        self._serve()
        if self._waiting:
            self._dial(asyncio.get_running_loop())

    async def _reach(self) -> Connection:
        """A connection that takes exchanges, to the first address that answers."""
        address = self.address
        loop = asyncio.get_running_loop()
        kind = Http2Connection if self._http is HttpVersion.HTTP_2 else Http11Connection
        failed: OutboundError = Unreachable(f"The host {address.host!r} has no address.")
        for ip in await self._guard.resolve(address):
            connection: Connection = kind(self, address.url, self._limits)
            try:
                await loop.create_connection(
                    lambda connection=connection: connection,
                    ip,
                    address.port,
                    ssl=trust(self._http) if address.is_secure else None,
                    server_hostname=address.host if address.is_secure else None,
                )
            except ssl.SSLCertVerificationError as error:
                raise UntrustedServer(f"{address.url} cannot be trusted: {error.verify_message}.") from error
            except OSError as error:
                if address.is_secure and isinstance(error, ssl.SSLError | ConnectionResetError):
                    words = f"{address.url} does not speak TLS as we do: {_reason(error)}."
                    raise WrongProtocol(words, hint="Is it http:// that it speaks?") from error
                failed = Unreachable(f"{address.url} ({ip}) cannot be reached: {_reason(error)}.")
                continue
            try:
                await connection.opened
            except asyncio.CancelledError:
                connection.close(ConnectionLost("It was not answered in time."))
                raise
            return connection
        raise failed

    # Waiting. --------------------------------------------------------------------------------------------------------

    def _lose_waiting(self, error: OutboundError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for _, exchange in waiting:
            exchange.lost(error)

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._alarm is None and self._waiting:
            self._alarm = loop.call_at(self._waiting[0][0], self._give_up, loop)

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Those that have waited too long are told."""
        self._alarm = None
        now = loop.time()
        while self._waiting and (self._waiting[0][0] <= now or self._waiting[0][1].is_over):
            _, exchange = self._waiting.popleft()
            exchange.lost(Crowded(f"{self.address.url} has taken no further request for {self._limits.wait:g} s."))
        self._set_alarm(loop)


def _load(connection: Connection) -> int:
    return connection.load if connection.room > 0 else 1_000_000


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return (error.strerror or str(error) or "it hangs up").lower()


@cache
def trust(http: HttpVersion) -> ssl.SSLContext:
    """Made once, for it reads every certificate that the system trusts."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2" if http is HttpVersion.HTTP_2 else "http/1.1"])
    return context
