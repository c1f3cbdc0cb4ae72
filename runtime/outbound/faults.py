"""What can go wrong between us and a deployment's server, each with what to do about it."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class OutboundError(RuntimeFault):
    """The server of a deployment could not be asked, or its answer broke off."""

    code = "outbound"
    is_passing = True
    """Whether it may be well again in a moment."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class Unreachable(OutboundError):
    """Nobody answers there."""

    code = "unreachable"
    hint = "Is the service running, does it listen on that address and port, and can this machine reach it?"


class Silent(Unreachable):
    """Somebody takes the connection, and does not say what was asked, or nothing at all."""

    code = "silent"


class ConnectionLost(OutboundError):
    """The connection ended before the answer did."""

    code = "connection_lost"
    hint = "Did the service stop or start anew? Its log knows."


class StreamReset(OutboundError):
    """The server broke off this one answer."""

    code = "stream_reset"
    hint = "Its log knows why."


class Crowded(OutboundError):
    """The server takes no more requests at once."""

    code = "crowded"
    hint = "Run more processes of the service, or let fewer invocations of it run at once."


class Shut(OutboundError):
    """This process ends, or no longer needs the server."""

    code = "shut"


class WrongProtocol(OutboundError):
    """The server speaks another HTTP than it was asked in."""

    code = "wrong_protocol"
    is_passing = False


class BrokenProtocol(OutboundError):
    """What the server sends is no HTTP."""

    code = "broken_protocol"
    is_passing = False
    hint = "Is that the port of the service, or of something else?"


class UntrustedServer(OutboundError):
    """The server's certificate does not hold."""

    code = "untrusted_server"
    is_passing = False
    hint = "Its certificate must name this host and be signed by one that SSL_CERT_FILE or the system trusts."


class BadAddress(OutboundError):
    """This is not the URL of a deployment."""

    code = "bad_address"
    is_passing = False
    hint = "Write it as in http://greeter.internal:9080."


class AddressRefused(OutboundError):
    """Perdure may not connect to this address."""

    code = "address_refused"
    is_passing = False
    hint = "PERDURE_DEPLOYMENT_ADDRESSES lists where deployments may be: public, private, loopback, networks and names."
