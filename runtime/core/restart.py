"""Restarting: what a new invocation takes over from the journal of one that has ended."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from perdure.protocol.ids import parse_id
from perdure.protocol.messages import (
    Call,
    CallInvocationIdCompletion,
    Command,
    Completion,
    Entry,
    InvocationRef,
    Run,
    Sleep,
)
from runtime.core.changes import Timer
from runtime.core.lifecycle import bounded


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


def take_over(entries: Sequence[Entry], last: int) -> Prefix:
    """The entries up to the index `last`, and what came later for the commands among them; the input is entry 0.

    A `ctx.run` without a result is run again.
    """
    kept = list(entries[1 : last + 1])
    commands = [(index, entry) for index, entry in enumerate(kept, 1) if isinstance(entry, Command)]
    asked = {id for _, command in commands for id in _completions(command)}
    kept += [entry for entry in entries[last + 1 :] if isinstance(entry, Completion) and entry.completion_id in asked]
    settled = {entry.completion_id for entry in kept if isinstance(entry, Completion)}
    callees = {
        entry.completion_id: parse_id(entry.result.invocation_id)
        for entry in kept
        if isinstance(entry, CallInvocationIdCompletion) and isinstance(entry.result, InvocationRef)
    }
    prefix = Prefix(kept)
    for index, command in commands:
        id = getattr(command, "result_completion_id", None)
        if id is None or id in settled:
            continue
        match command:
            case Run():
                pass
            case Sleep():
                prefix.timers.append(Timer(bounded(command.wake_up_time) or 1, id))
            case Call() if command.invocation_id_notification_idx in callees:
                prefix.calls[id] = callees[command.invocation_id_notification_idx]
                prefix.places[id] = index
            case _ if prefix.open is None:
                prefix.open = index
            case _:
                pass
    return prefix


def _completions(command: Command) -> list[int]:
    """Under which ids something comes for it."""
    ids = (getattr(command, name, None) for name in ("result_completion_id", "invocation_id_notification_idx"))
    return [id for id in ids if id is not None]
