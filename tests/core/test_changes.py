"""Changes: each has lists of its own, and knows about how many rows it becomes."""

from __future__ import annotations

from perdure.protocol.ids import fresh_id
from runtime.core import slots
from runtime.core.changes import NOBODY, Changes, Creation, Mail, Timer
from runtime.core.invocation import Invocation, Mode

ID = fresh_id(1, 1)


def test_nobodys_changes_share_nothing_but_nobody() -> None:
    one, other = Changes(), Changes()
    one.frames.append(b"f")
    one.creations.append(Creation(NOBODY))
    one.state["a"] = b"1"
    one.timers.append(Timer(1, 1))
    one.mails.append(Mail(ID, 1))
    one.read.append(1)
    assert other == Changes()
    assert one.invocation is other.invocation is NOBODY


def test_every_effect_with_a_row_of_its_own_counts() -> None:
    callee = Invocation(ID, "Greeter", "greet", None, Mode.SERVICE, "default", b"")
    changes = Changes(
        frames=[b"a", b"b", b"c"],  # one row, however many there are
        creations=[Creation(callee), Creation(callee)],
        state={"a": b"1", "b": None, "c": b"3"},
        timers=[Timer(5, 1)],
        mails=[Mail(ID, 1)],
    )
    assert Changes().size == 1
    assert changes.size == 1 + 2 + 3 + 1 + 1


def test_the_slots_of_verbs_are_no_completion_ids_and_differ() -> None:
    verbs = {slots.START, slots.RETRY, slots.CANCEL, slots.KILL}
    assert len(verbs) == 4
    assert max(verbs) < 0
