"""Restarting: what a new invocation takes over from the journal of one that has ended."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from msgspec import Struct, field

from perdure.errors import InvalidAwakeableId
from perdure.protocol.codec import encode
from perdure.protocol.ids import FIRST_AWAKEABLE, format_awakeable, parse_awakeable, parse_id
from perdure.protocol.messages import (
    Call,
    CallInvocationIdCompletion,
    Command,
    Completion,
    Entry,
    InvocationRef,
    Run,
    Signal,
    Sleep,
)
from runtime.core.changes import Timer
from runtime.core.lifecycle import bounded

_WHOLE = len(format_awakeable(bytes(16), FIRST_AWAKEABLE))
_STEM = _WHOLE - 6
"""As much of a written awakeable as only its invocation decides."""


class Prefix(Struct):
    """The beginning of a journal, as far as it is taken over."""

    entries: list[Entry] = field(default_factory=list)
    """Without the input."""
    timers: list[Timer] = field(default_factory=list)
    """Sleeps that are not over."""
    calls: dict[int, bytes] = field(default_factory=dict)
    """Calls whose results were not there yet: completion id -> callee."""
    places: dict[int, int] = field(default_factory=dict)
    """Completion id of each of these calls -> the index of its entry."""
    open: int | None = None
    """The index of the first entry that waits for something which would never come to somebody else."""


def take_over(id: bytes, entries: Sequence[Entry], last: int) -> Prefix:
    """The entries up to the index `last`, and what came later for the commands among them; the input is entry 0.

    A `ctx.run` without a result is run again. An awakeable of `id`, whose journal it is, is settled or keeps it open:
    whoever was told of it would settle that one's.
    """
    kept = list(entries[1 : last + 1])
    commands = [(index, entry) for index, entry in enumerate(kept, 1) if isinstance(entry, Command)]
    asked = {completion for _, command in commands for completion in _completions(command)}
    awakeables = _awakeables(id, kept)
    for entry in entries[last + 1 :]:
        came = isinstance(entry, Completion) and entry.completion_id in asked
        if came or (isinstance(entry, Signal) and entry.signal in awakeables):
            kept.append(entry)
    heard = {entry.signal for entry in kept if isinstance(entry, Signal)}
    settled = {entry.completion_id for entry in kept if isinstance(entry, Completion)}
    callees = {
        entry.completion_id: parse_id(entry.result.invocation_id)
        for entry in kept
        if isinstance(entry, CallInvocationIdCompletion) and isinstance(entry.result, InvocationRef)
    }
    unsettled = [index for number, index in awakeables.items() if number not in heard]
    prefix = Prefix(kept, open=min(unsettled, default=None))
    for index, command in commands:
        awaited = getattr(command, "result_completion_id", None)
        if awaited is None or awaited in settled:
            continue
        match command:
            case Run():
                pass
            case Sleep():
                prefix.timers.append(Timer(bounded(command.wake_up_time) or 1, awaited))
            case Call() if command.invocation_id_notification_idx in callees:
                prefix.calls[awaited] = callees[command.invocation_id_notification_idx]
                prefix.places[awaited] = index
            case _:
                prefix.open = index if prefix.open is None else min(index, prefix.open)
    return prefix


def _awakeables(id: bytes, entries: Sequence[Entry]) -> dict[int, int]:
    """Numbers of an invocation's awakeables, each with the index of the first entry that tells others of it."""
    stem = format_awakeable(id, 0)[:_STEM]
    written = re.compile(re.escape(stem.encode()) + rb"[A-Za-z0-9_-]{%d}" % (_WHOLE - _STEM))
    found: dict[int, int] = {}
    for index, entry in enumerate(entries, 1):
        for text in written.findall(encode(entry)):
            with contextlib.suppress(InvalidAwakeableId):
                whose, number = parse_awakeable(text.decode())
                if whose == id:
                    found.setdefault(number, index)
    return found


def _completions(command: Command) -> list[int]:
    """Under which ids something comes for it."""
    ids = (getattr(command, name, None) for name in ("result_completion_id", "invocation_id_notification_idx"))
    return [id for id in ids if id is not None]
