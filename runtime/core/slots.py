"""Slots: the number under which mail is put down, and under which a sleeper says what would wake it.

Above zero they are completion ids. Below zero stand what a timer or a verb asks for, then the numbered signals (an
awakeable is one), and far below those the named signals, whose slots the database draws one by one: a name may be sent
many times, and none of them may be lost.
"""

from __future__ import annotations

from perdure.protocol.messages import Completion, Notification, Signal

# In a timer, what is due.
START = -1
RETRY = -2
# Verbs.
CANCEL = -3
KILL = -4
PAUSE = -5
NAMED = -6
"""In what a sleeper waits for: any named signal."""

_NUMBERED = -100
FIRST_NAMED = -(2**30)
"""Named signals have slots from here downwards, in the order of sending."""
LARGEST_SIGNAL = 2**29


def of_signal(number: int) -> int:
    """The slot of a numbered signal, up to LARGEST_SIGNAL.

    >>> of_signal(17)
    -117
    """
    return _NUMBERED - number


def number_of(slot: int) -> int:
    """The number of the signal that has this slot.

    >>> number_of(of_signal(17))
    17
    """
    return _NUMBERED - slot


def awaited(notification: Notification) -> int:
    """What a sleeper waits for when this would wake it.

    >>> from perdure.protocol.messages import VOID, SleepCompletion
    >>> awaited(SleepCompletion(3, VOID)), awaited(Signal(17)), awaited(Signal("paid"))
    (3, -117, -6)
    """
    match notification:
        case Completion(completion_id=id):
            return id
        case Signal(signal=int(number)):
            return of_signal(number)
        case _:
            return NAMED


def is_signal(slot: int) -> bool:
    """Whether the mail in this slot is a signal: its frame is the whole message.

    >>> is_signal(of_signal(17)), is_signal(CANCEL), is_signal(3)
    (True, False, False)
    """
    return slot < _NUMBERED
