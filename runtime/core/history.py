"""What becomes of an object's values within one flush, for those who ask later who changed them."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.protocol.messages import ClearAllState, ClearState, Command, SetState

History = dict[str, tuple[bytes | None, bytes | None]]
"""Name -> what the value was before, and what it is now; None: there is none."""


def note(history: History, values: Mapping[str, bytes], command: Command) -> None:
    """Add what a command is about to do to `values`.

    >>> from perdure.protocol.messages import Value
    >>> history: History = {}
    >>> note(history, {"a": b"1"}, SetState("a", Value(b"2")))
    >>> note(history, {"a": b"2"}, ClearAllState())
    >>> history
    {'a': (b'1', None)}
    """
    if type(command) is SetState:
        _becomes(history, command.key, values.get(command.key), command.value.content)
    elif type(command) is ClearState:
        _becomes(history, command.key, values.get(command.key), None)
    elif type(command) is ClearAllState:
        for name, value in values.items():
            _becomes(history, name, value, None)


def _becomes(history: History, name: str, present: bytes | None, after: bytes | None) -> None:
    before = history.pop(name, (present,))[0]
    if before != after:
        history[name] = (before, after)
