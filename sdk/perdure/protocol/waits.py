"""When a wait is over: the tree of what a handler waits for, against what is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum, auto

from perdure.protocol.messages import Combinator, Completion, Failure, Notification, Signal, Wait


class Standing(Enum):
    """How far a wait has come."""

    PENDING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    UNDETERMINED = auto()
    """Over, but only the handler can tell how."""


class Known:
    """What notifications have settled: True for a success, False for a failure."""

    __slots__ = ("completions", "signals")

    def __init__(self, notifications: Iterable[Notification] = ()) -> None:
        self.completions: dict[int, bool] = {}
        self.signals: dict[int | str, bool] = {}
        for notification in notifications:
            self.add(notification)

    def add(self, notification: Notification) -> None:
        match notification:
            case Completion(id, result):
                self.completions[id] = not isinstance(result, Failure)
            case Signal(signal, result):
                self.signals[signal] = not isinstance(result, Failure)
            case _:
                pass


def satisfied(wait: Wait, known: Known) -> bool:
    """Whether a handler that waits so may go on. Rather too early than never: it can wait again.

    >>> from perdure.protocol.messages import VOID, SleepCompletion
    >>> wait = Wait(signals=(1,), nested=(Wait(completions=(2, 3), combinator=Combinator.ALL_COMPLETED),))
    >>> known = Known([SleepCompletion(2, VOID)])
    >>> satisfied(wait, known)
    False
    >>> known.add(SleepCompletion(3, VOID))
    >>> satisfied(wait, known)
    True
    """
    return standing(wait, known) is not Standing.PENDING


def standing(wait: Wait, known: Known) -> Standing:
    """How far a wait has come."""
    parts = list(_parts(wait, known))
    over = [part for part in parts if part is not Standing.PENDING]
    match wait.combinator:
        case Combinator.FIRST_COMPLETED:
            # Which came first cannot be seen here: where that makes a difference, the handler has to say.
            return Standing.PENDING if not over else over[0] if len(set(over)) == 1 else Standing.UNDETERMINED
        case Combinator.UNKNOWN:
            return Standing.UNDETERMINED if over else Standing.PENDING
        case Combinator.ALL_COMPLETED:
            return Standing.SUCCEEDED if len(over) == len(parts) else Standing.PENDING
        case Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED:
            return _unless(Standing.SUCCEEDED, parts, Standing.FAILED)
        case Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED:
            return _unless(Standing.FAILED, parts, Standing.SUCCEEDED)


def is_empty(wait: Wait) -> bool:
    """Whether nothing could ever end it.

    >>> is_empty(Wait(nested=(Wait(),)))
    True
    """
    return next(leaves(wait), None) is None


def is_flat(wait: Wait) -> bool:
    """Whether the first of all things that it mentions ends it.

    >>> is_flat(Wait((1, 2))), is_flat(Wait(nested=(Wait((1, 2), combinator=Combinator.ALL_COMPLETED),)))
    (True, False)
    """
    return wait.combinator in (Combinator.FIRST_COMPLETED, Combinator.UNKNOWN) and all(map(is_flat, wait.nested))


def leaves(wait: Wait) -> Iterator[Wait]:
    """All parts of a wait that hold completions or signals of their own, itself included."""
    if wait.completions or wait.signals or wait.named_signals:
        yield wait
    for part in wait.nested:
        yield from leaves(part)


def _unless(decisive: Standing, parts: list[Standing], otherwise: Standing) -> Standing:
    """One decides; else all must be the other way."""
    for standing in (decisive, Standing.UNDETERMINED, Standing.PENDING):
        if standing in parts:
            return standing
    return otherwise


def _parts(wait: Wait, known: Known) -> Iterator[Standing]:
    for id in wait.completions:
        yield _leaf(known.completions.get(id))
    for signal in wait.signals:
        yield _leaf(known.signals.get(signal))
    for name in wait.named_signals:
        yield _leaf(known.signals.get(name))
    for part in wait.nested:
        yield standing(part, known)


def _leaf(success: bool | None) -> Standing:
    if success is None:
        return Standing.PENDING
    return Standing.SUCCEEDED if success else Standing.FAILED
