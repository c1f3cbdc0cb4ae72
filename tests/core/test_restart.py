"""What a new invocation takes over of the awakeables in another's journal."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from perdure.protocol.ids import FIRST_AWAKEABLE, format_awakeable
from perdure.protocol.messages import Entry, Input, OneWayCall, Run, RunCompletion, Signal, Value
from runtime.core.restart import take_over

ID, OTHER = bytes(range(16)), bytes(16)
SETTLED = Signal(FIRST_AWAKEABLE, Value(b"1"))


def tells(id: bytes, number: int = FIRST_AWAKEABLE) -> OneWayCall:
    return OneWayCall("Mailbox", "put", b'{"id": "%s"}' % format_awakeable(id, number).encode(), 1, key="Mary")


@pytest.mark.parametrize(
    ("entries", "last", "open"),
    [
        ([tells(ID)], 1, 1),
        ([Run(1), RunCompletion(1, Value(format_awakeable(ID, 18).encode())), tells(ID)], 3, 2),
        ([tells(ID), SETTLED], 2, None),
        ([tells(ID), Run(1), SETTLED], 1, None),
        ([tells(ID), SETTLED, tells(ID, 18)], 3, 3),
        ([tells(OTHER)], 1, None),
        ([Run(1), tells(ID)], 1, None),
    ],
    ids=["unsettled", "of a step", "settled", "settled later", "another unsettled", "somebody else's", "told later"],
)
def test_an_awakeable_that_others_know_of_keeps_it_open_until_it_is_settled(
    entries: Sequence[Entry], last: int, open: int | None
) -> None:
    assert take_over(ID, [Input(Value(b"")), *entries], last).open == open


def test_what_settled_an_awakeable_later_is_taken_over_and_other_signals_are_not() -> None:
    entries: list[Entry] = [Input(Value(b"")), tells(ID), Run(1), Signal("go"), Signal(18), SETTLED]
    assert take_over(ID, entries, 1).entries == [entries[1], SETTLED]
