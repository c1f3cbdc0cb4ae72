"""What one incarnation of an engine holds in memory. All of it may be forgotten at any moment."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from msgspec import structs

from runtime.core.invocation import Invocation
from runtime.core.registry import NOTHING, HandlerInfo, Registry, read_service
from runtime.engine.attempts import Host
from runtime.engine.drive import Drive
from runtime.engine.keys import Lease
from runtime.engine.remote import RemoteHost
from runtime.store.claim import Key
from runtime.store.drained import Drained
from runtime.wakeups import Asker

MAX_DRIVES = 5_000
REMEMBERED = 50_000
ABORT_MS = 600_000
"""How long a handler behind HTTP may be silent after it was asked to suspend, where nothing else is said."""
PAGE = resource.getpagesize()

T = TypeVar("T")


class Code:
    """One deployment that this engine drives: code that its process has loaded, or a service behind HTTP."""

    def __init__(self, id: str, host: Host | RemoteHost, manifest: Mapping[str, Any]) -> None:
        self.id = id
        self.host = host
        self._services = manifest["services"]
        self.handlers: Mapping[tuple[str, str], HandlerInfo] = {}
        """By names of service and handler."""
        self.configure(Registry())

    @property
    def is_remote(self) -> bool:
        return isinstance(self.host, RemoteHost)

    def configure(self, registry: Registry) -> None:
        """Let what operators have set go before what the code says, from the next attempts on."""
        known = registry.services
        services = [
            read_service(entry, self.id, 0, known[entry["name"]].options if entry["name"] in known else NOTHING)
            for entry in self._services
        ]
        self.handlers = {
            (service.name, name): _from_afar(handler) if self.is_remote else handler
            for service in services
            for name, handler in service.handlers.items()
        }


def _from_afar(handler: HandlerInfo) -> HandlerInfo:
    """A handler behind HTTP: it is told nothing that is not durable, and may not be silent for ever."""
    abort_ms = ABORT_MS if handler.abort_ms is None else handler.abort_ms
    return structs.replace(handler, speculate=False, abort_ms=abort_ms)


class Memory:
    def __init__(self, code: Iterable[Code], queues: Iterable[str], most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.code = {loaded.id: loaded for loaded in code}
        self.queues = frozenset(queues)
        self.open_queues = self.queues
        """Those of which it may begin something new: none of a drained engine's."""
        self.drained = Drained()
        self.is_draining = False
        """Whether there is anything that may not begin here."""
        self.claimable: dict[str, str] = {}
        """Service -> its newest deployment, of those that are loaded here."""
        self.drives: dict[bytes, Drive] = {}
        self.leases: dict[Key, Lease] = {}
        self.careful: set[Key] = set()
        """Keys whose invocations are driven one at a time until it is known which of them the database refuses."""
        self._recent: dict[bytes, None] = {}
        self._watchers: dict[bytes, list[Asker]] = {}

    @property
    def room(self) -> int:
        """How many more invocations it would take from the queue."""
        return max(0, MAX_DRIVES - len(self.drives))

    @property
    def newcomers(self) -> int:
        """How many more may begin here without having been in the queue: a quarter of the room is for what is older."""
        return max(0, MAX_DRIVES * 3 // 4 - len(self.drives))

    @property
    def is_crowded(self) -> bool:
        return not self.newcomers or resident_bytes() > self._most_bytes * 3 // 4

    def takes(self, service: str, queue: str, deployment: str | None = None) -> bool:
        """Whether invocations of the service may be driven here: new ones, or those of a deployment."""
        is_loaded = deployment in self.code if deployment else service in self.claimable
        return is_loaded and queue in self.open_queues

    def drain(self, drained: Drained) -> None:
        """What is drained from now on."""
        self.drained = drained
        self.is_draining = drained.is_engine or bool(drained.queues)
        self.open_queues = frozenset() if drained.is_engine else self.queues - drained.queues

    def holds_back(self, invocation: Invocation) -> bool:
        """Whether it may not begin, or go on, here: it or its engine is drained."""
        return self.drained.is_engine or invocation.queue in self.drained.queues

    def knows(self, id: bytes) -> bool:
        """Under way here, or ended here not long ago: a late hint is about nothing new."""
        return id in self.drives or id in self._recent

    def has_ended(self, id: bytes) -> bool:
        """Whether it ended here, not long ago."""
        return id in self._recent

    def forget(self, drive: Drive) -> None:
        """It is no longer driven here."""
        if self.drives.get(drive.invocation.id) is drive:
            del self.drives[drive.invocation.id]

    def remember(self, id: bytes) -> None:
        """It has ended."""
        _add_bounded(self._recent, id, None)

    def watch(self, id: bytes, asker: Asker) -> None:
        """Tell `asker` when the invocation ends."""
        drive = self.drives.get(id)
        if drive is not None:
            drive.watchers.append(asker)
        elif id in self._watchers:
            self._watchers[id].append(asker)
        else:
            _add_bounded(self._watchers, id, [asker])

    def watchers_of(self, id: bytes) -> list[Asker]:
        """Those who asked before it was driven here; taken over by its drive."""
        return self._watchers.pop(id, [])


def resident_bytes() -> int:
    """What this process occupies; 0 where the system does not tell. It costs 10 us."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 -- four times as fast as a Path
            return int(file.read().split()[1]) * PAGE
    except OSError:
        return 0


def _add_bounded(table: dict[bytes, T], id: bytes, value: T) -> None:
    """Oldest out first: each entry saves time only, and a poll does without."""
    table[id] = value
    if len(table) > REMEMBERED:
        for old in list(table)[: REMEMBERED // 2]:
            del table[old]
