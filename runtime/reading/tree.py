"""The call tree around an invocation: who called it, and whom it has called or sent something to.

Down it follows the journals, level by level, as far as there is room. Up it follows those who await a result: who has
sent something is not remembered by what was sent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from uuid import UUID

from django.db.models import Sum
from django.db.models.functions import Length
from msgspec import Struct, field

from perdure.protocol.ids import format_id, parse_id
from runtime.models import Done, Journal
from runtime.reading import calls
from runtime.reading.calls import Called
from runtime.reading.invocations import Summary, summaries
from runtime.reading.words import counted

MOST = 1_000
"""Invocations in one tree."""
DEEPEST = 100
MOST_BYTES = 16 * 1024 * 1024
"""Of journals that are read for one tree."""


class Relation(StrEnum):
    """What an invocation is to its parent."""

    CALL = "call"  # its result is awaited
    SEND = "send"


class Node(Struct, kw_only=True):
    """An invocation in a tree."""

    id: str
    target: str | None
    """None: it is not known any more."""
    relation: Relation | None = None
    """To its parent; None: the root and its ancestors, which are called by the one before."""
    name: str = ""
    """What the parent's author called it."""
    summary: Summary | None = None
    """None: it is not kept any more, or none of the services that whoever asks may see."""
    children: list[Node] = field(default_factory=list)
    left_out: int = 0
    """Children that are not in the tree: it has grown deep or large enough."""
    is_repeated: bool = False
    """It stands in the tree already, with its children: several have called it with one idempotency key."""
    is_unread: bool = False
    """Its journal is too large to be read for its children."""


class Tree(Struct, kw_only=True):
    """What is around an invocation."""

    ancestors: list[Node]
    """Who called it, who called that one and so on; the first cause first."""
    root: Node
    """Itself, with its children."""
    count: int
    """Invocations in it, the ancestors too."""
    cut: str | None
    """What is not in it, in words; None: it is whole."""


async def tree(id: bytes, *, depth: int = 10, limit: int = 100, services: Collection[str] | None = None) -> Tree | None:
    """The tree around an invocation: `depth` levels up and down, at most `limit` invocations. None: it is unknown.

    Of the invocations of services other than `services` only that they were called is told; None: of all services.
    """
    found = await summaries([id], services)
    if not found:
        return None
    (summary,) = found.values()
    growing = Growing(services, limit - 1)
    root = Node(id=summary.id, target=summary.target, summary=summary)
    ancestors = await growing.up(root, depth)
    await growing.down([root], depth)
    return Tree(
        ancestors=ancestors,
        root=root,
        count=limit - growing.room,
        cut=growing.cut,
    )


class Growing:
    """A tree that grows until it has no room."""

    def __init__(self, services: Collection[str] | None, room: int) -> None:
        self.room = room
        self._services = services
        self._bytes_left = MOST_BYTES
        self._seen: set[str] = set()
        self._has_more_above = False
        self._left_out = 0
        self._unread = 0

    @property
    def cut(self) -> str | None:
        """What it has no room for."""
        missing = []
        if self._has_more_above:
            missing.append("further callers above")
        if self._left_out:
            missing.append(f"{counted(self._left_out, 'call')} below, and what follows from them")
        if self._unread:
            missing.append(f"the calls of {counted(self._unread, 'invocation')} with large journals")
        return f"Not in it: {'; '.join(missing)}." if missing else None

    async def up(self, node: Node, depth: int) -> list[Node]:
        """Who called it, and who called that one."""
        found: list[Node] = []
        self._seen.add(node.id)
        while node.summary is not None and (id := node.summary.invoked_by_id) is not None:
            if id in self._seen or len(found) == depth or not self.room:
                self._has_more_above = True
                break
            summary = (await summaries([parse_id(id)], self._services)).get(id)
            node = Node(id=id, target=None if summary is None else summary.target, summary=summary)
            self._seen.add(id)
            self.room -= 1
            found.insert(0, node)
        return found

    async def down(self, level: Sequence[Node], depth: int) -> None:
        """All of a level at once, and then the next one."""
        while level:
            called = await self._called(level)
            new: list[Node] = []
            for node in level:
                children = called.get(node.id, ())
                room = self.room if depth else 0
                node.children = [self._child(one) for one in children[:room]]
                node.left_out = len(children) - len(node.children)
                self._left_out += node.left_out
                new += [child for child in node.children if not child.is_repeated]
            known = await summaries([parse_id(node.id) for node in new], self._services) if new else {}
            for node in new:
                node.summary = known.get(node.id)
            level = [node for node in new if node.summary is not None]
            depth -= 1

    def _child(self, one: Called) -> Node:
        id = format_id(one.id)
        is_repeated = id in self._seen
        self._seen.add(id)
        self.room -= 1
        relation = Relation.CALL if one.is_awaited else Relation.SEND
        return Node(id=id, target=one.target, relation=relation, name=one.name, is_repeated=is_repeated)

    async def _called(self, level: Sequence[Node]) -> Mapping[str, Sequence[Called]]:
        """Whom each of them has called, as their journals say."""
        ids = [UUID(bytes=parse_id(node.id)) for node in level]
        sizes: dict[UUID, int] = defaultdict(int)
        flushed = Journal.objects.filter(invocation__in=ids).values_list("invocation")
        async for id, size in flushed.annotate(size=Sum(Length("frames"))):
            sizes[id] += size
        async for id, size in Done.objects.filter(id__in=ids).values_list("id", Length("frames")):
            sizes[id] += size
        read = []
        for node, id in zip(level, ids, strict=True):
            if sizes[id] > self._bytes_left:
                node.is_unread = True
                self._unread += 1
            elif sizes[id]:
                self._bytes_left -= sizes[id]
                read.append(id)
        pieces: dict[UUID, list[bytes | memoryview]] = defaultdict(list)
        rows = Journal.objects.filter(invocation__in=read).order_by("invocation", "first")
        async for id, frames in rows.values_list("invocation", "frames"):
            pieces[id].append(frames)
        async for id, frames in Done.objects.filter(id__in=read).values_list("id", "frames"):
            pieces[id].append(frames)
        return {format_id(id.bytes): calls.called(calls.read(found)) for id, found in pieces.items()}
