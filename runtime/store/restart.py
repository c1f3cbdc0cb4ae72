"""Restarting as new: one that has ended is done again, from its beginning or from a place in its journal.

The new one takes over the input and the journal up to that place, with what has come for it; it has an id of its own,
no caller and no idempotency key, and its turn behind those that wait for its key already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from perdure.protocol.codec import decode, encode
from runtime.core.changes import Changes, Creation, Mail
from runtime.core.invocation import Invocation
from runtime.core.registry import HandlerInfo, Registry
from runtime.core.restart import Prefix, take_over
from runtime.errors import RuntimeFault
from runtime.store import pack
from runtime.store.audit import Note
from runtime.store.commit import Receipt, statements
from runtime.store.link import Link, Pipeline, Row, Statement, rows, whole
from runtime.store.purge import LOCK_LIVING
from runtime.store.verbs import JOURNALS, tried


class Restarted(StrEnum):
    """What came of it."""

    RESTARTED = "restarted"
    REPEATED = "repeated"  # it was before, with the same idempotency key: nothing more was done
    NOT_ENDED = "not_ended"
    JOURNAL_GONE = "journal_gone"  # purged, or not kept
    NO_SUCH_ENTRY = "no_such_entry"
    STILL_OPEN = "still_open"  # something in the part that is taken over is awaited still, and would not come
    NO_SUCH_CODE = "no_such_code"  # no such deployment has its handler
    RUNS_ONCE = "runs_once"  # it is a workflow's run, of which there is one for each key
    NO_SERVICE = "no_service"  # none that is registered has its handler any more
    UNKNOWN = "unknown"


ENDED = Statement(
    """
SELECT id, service, handler, key, deployment, input, frames, entries FROM done WHERE id = ANY ($1::uuid[]) FOR SHARE
""",
    pack.UUIDS,
)
HAVE_HANDLER = Statement(
    """
SELECT done.id FROM done JOIN deployment ON deployment.id = $2::text AND deployment.manifest @> jsonb_build_object(
    'services', jsonb_build_array(jsonb_build_object(
        'name', done.service, 'handlers', jsonb_build_array(jsonb_build_object('name', done.handler))
    ))
)
WHERE done.id = ANY ($1::uuid[])
""",
    pack.UUIDS,
    pack.TEXT,
)
RESULTS = Statement("SELECT id, result FROM done WHERE id = ANY ($1::uuid[])", pack.UUIDS)

# Who comes second waits for the first, and sees its row in the next statement.
CLAIM_KEY = Statement(
    """
INSERT INTO restart_key (actor, source, key, invocation) VALUES ($1::text, $2::uuid, $3::text, $4::uuid)
ON CONFLICT DO NOTHING
""",
    pack.TEXT,
    pack.UUID,
    pack.TEXT,
    pack.UUID,
)
MADE_BEFORE = Statement(
    "SELECT invocation FROM restart_key WHERE actor = $1::text AND source = $2::uuid AND key = $3::text",
    pack.TEXT,
    pack.UUID,
    pack.TEXT,
)
GIVE_KEY_BACK = Statement(
    "DELETE FROM restart_key WHERE actor = $1::text AND source = $2::uuid AND key = $3::text",
    pack.TEXT,
    pack.UUID,
    pack.TEXT,
)


class Source(Struct):
    """One that has ended, and is to be done again."""

    service: str
    handler: str
    key: str | None
    deployment: str | None
    input: bytes
    last: bytes
    """The journal's last frames."""
    count: int
    """Of all entries, the output too; 0: purged."""
    flushes: bytes = b""
    """The frames before the last."""


class Open(Struct, frozen=True):
    """What keeps one from being restarted there."""

    index: int
    """Of an entry that is to be taken over, and awaits what has not come yet."""
    callee: bytes | None = None
    """Whose end that is."""


class Once(Struct, frozen=True):
    """Who asks again with the same key means the same restart."""

    actor: str
    key: str


class Restarts(Struct):
    """What came of it, and who was born."""

    came: dict[bytes, Restarted] = field(default_factory=dict)
    open: dict[bytes, Open] = field(default_factory=dict)
    """Of those that are STILL_OPEN."""
    made: dict[bytes, bytes] = field(default_factory=dict)
    """The new one of each that is RESTARTED, now or, REPEATED, before."""
    creations: list[Creation] = field(default_factory=list)
    receipt: Receipt = field(default_factory=Receipt)


class How(Struct, frozen=True):
    """What is asked for."""

    last: int
    """The index of the last entry that is taken over; 0: only the input."""
    deployment: str | None
    """On this code; None: on the newest."""
    keep: bool
    """On the code that it had."""
    once: Once | None = None
    """Of one alone."""


async def restart(link: Link, news: Mapping[bytes, bytes], how: How, registry: Registry, note: Note) -> Restarts:
    """Do those again that `news` names, each under the id that it has there, all in one transaction."""
    return await tried(lambda: _try(link, news, how, registry, note))


async def _try(link: Link, news: Mapping[bytes, bytes], how: How, registry: Registry, note: Note) -> Restarts:
    """One transaction."""
    ids = pack.uuids(sorted(news))
    sources: dict[bytes, Source] = {}
    living: set[bytes] = set()
    have_code: set[bytes] = set()
    restarts, changes = Restarts(), list[Changes]()
    looking = Pipeline()
    looking.begin()
    if how.once is not None:
        _claim(looking, news, how.once, restarts)
    looking.call(LOCK_LIVING, ids, read=lambda result: living.update(row[0] for row in rows(result)))
    looking.call(ENDED, ids, read=lambda result: sources.update(map(_source, rows(result))))
    looking.call(JOURNALS, ids, read=lambda result: _read_journals(result, sources))
    if how.deployment is not None:
        looking.call(
            HAVE_HANDLER,
            ids,
            how.deployment.encode(),
            read=lambda result: have_code.update(row[0] for row in rows(result)),
        )
    async with whole(link):
        await link.run(looking)
        if how.once is not None and restarts.made != news:
            return await _repeated(link, restarts, note)
        judged = {
            id: _judge(id, source, how, has_code=how.deployment is None or id in have_code)
            for id, source in sources.items()
            if id not in living
        }
        callees = {callee for _, prefix in judged.values() for callee in prefix.calls.values()}
        results = await _results(link, sorted(callees))
        for id in news:
            word, prefix = judged.get(id, (Restarted.NOT_ENDED if id in living else Restarted.UNKNOWN, Prefix()))
            if word is Restarted.RESTARTED and (open := _open(prefix, results)) is not None:
                word, restarts.open[id] = Restarted.STILL_OPEN, open
            handler = _handler(registry, sources[id]) if word is Restarted.RESTARTED else None
            if word is Restarted.RESTARTED and handler is None:
                word = Restarted.NO_SERVICE
            elif handler is not None and handler.runs_once:
                word, handler = Restarted.RUNS_ONCE, None
            restarts.came[id] = word
            if handler is not None:
                changes.append(_born(news[id], sources[id], prefix, handler, how, results))
        restarts.creations = [creation for change in changes for creation in change.creations]
        restarts.made = {id: new for id, new in news.items() if restarts.came[id] is Restarted.RESTARTED}
        acting = statements(changes, restarts.receipt)
        if how.once is not None and not restarts.made:
            ((id, _),) = news.items()
            acting.call(GIVE_KEY_BACK, how.once.actor.encode(), id, how.once.key.encode())
        note(acting, restarts.came)
        acting.commit()
        await link.run(acting)
    return restarts


def _claim(looking: Pipeline, news: Mapping[bytes, bytes], once: Once, restarts: Restarts) -> None:
    """Note under its key who is to be born, and find who was before."""
    ((id, new),) = news.items()
    actor, source, key = once.actor.encode(), id, once.key.encode()
    looking.call(CLAIM_KEY, actor, source, key, new)
    looking.call(
        MADE_BEFORE, actor, source, key, read=lambda result: restarts.made.update((id, row[0]) for row in rows(result))
    )


async def _repeated(link: Link, restarts: Restarts, note: Note) -> Restarts:
    restarts.came = dict.fromkeys(restarts.made, Restarted.REPEATED)
    acting = Pipeline()
    note(acting, restarts.came)
    acting.commit()
    await link.run(acting)
    return restarts


def _source(row: Row) -> tuple[bytes, Source]:
    id, service, handler, key, deployment, input, frames, count = row
    return id, Source(
        service.decode(),
        handler.decode(),
        None if key is None else key.decode(),
        None if deployment is None else deployment.decode(),
        input,
        frames,
        pack.integer(count),
    )


def _read_journals(result: Any, sources: Mapping[bytes, Source]) -> None:
    """What was written before the last frames."""
    for id, frames in rows(result):
        if id in sources:
            sources[id].flushes += frames


def _judge(id: bytes, source: Source, how: How, *, has_code: bool) -> tuple[Restarted, Prefix]:
    """What is to come of one, and what is taken over."""
    if not has_code:
        return Restarted.NO_SUCH_CODE, Prefix()
    if not source.count:
        return Restarted.JOURNAL_GONE, Prefix()
    if not how.last:
        return Restarted.RESTARTED, Prefix()
    entries: list[Any] = [*decode(source.input), *decode(source.flushes + source.last)]
    if len(entries) + 1 < source.count:  # it counts the output, too
        return Restarted.JOURNAL_GONE, Prefix()
    if how.last >= len(entries):
        return Restarted.NO_SUCH_ENTRY, Prefix()
    prefix = take_over(id, entries, how.last)
    return Restarted.RESTARTED, prefix


def _open(prefix: Prefix, results: Mapping[bytes, bytes]) -> Open | None:
    """The first entry of what is taken over that awaits what has not come, and would not come to somebody else."""
    found = [] if prefix.open is None else [Open(prefix.open)]
    found += [Open(prefix.places[id], callee) for id, callee in prefix.calls.items() if callee not in results]
    return min(found, key=lambda open: open.index, default=None)


async def _results(link: Link, callees: Sequence[bytes]) -> dict[bytes, bytes]:
    """Of those of them that have ended, and are kept."""
    found: dict[bytes, bytes] = {}
    if callees:
        pipeline = Pipeline()
        pipeline.call(RESULTS, pack.uuids(callees), read=lambda result: found.update(map(tuple, rows(result))))
        await link.run(pipeline)
    return found


def _handler(registry: Registry, source: Source) -> HandlerInfo | None:
    """Which says where it is queued, and how it shares its key."""
    try:
        handler = registry.resolve(source.service, source.handler)
    except RuntimeFault:
        return None
    return handler if handler.is_keyed == (source.key is not None) else None


def _born(
    id: bytes, source: Source, prefix: Prefix, handler: HandlerInfo, how: How, results: Mapping[bytes, bytes]
) -> Changes:
    """One with a journal has a deployment from the beginning: by that its engine knows that there is one."""
    deployment = source.deployment if how.keep else how.deployment
    if prefix.entries and deployment is None:
        deployment = handler.deployment
    new = Invocation(
        id, source.service, source.handler, source.key, handler.mode, handler.queue, source.input, deployment=deployment
    )
    return Changes(
        new,
        first=1,
        frames=[encode(entry) for entry in prefix.entries],
        creations=[Creation(new)],
        timers=prefix.timers,
        mails=[Mail(id, completion, results[callee]) for completion, callee in prefix.calls.items()],
    )
