"""A lease in memory: who of its inbox may start, and when the key may be given back."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.protocol.ids import fresh_id
from perdure.protocol.messages import ClearAllState, ClearState, Command, Run, SetState, Value
from runtime.core.invocation import Invocation, Mode, Status
from runtime.engine.drive import Drive
from runtime.engine.keys import LONGEST_CHAIN, Lease
from runtime.store.claim import Inbox, Loaded

SOMEBODY = cast(Drive, object())


def letter(position: int, **known: Any) -> Loaded:
    invocation = Invocation(fresh_id(1, position), "Mailbox", "put", "mary", Mode.EXCLUSIVE, "default", b"")
    return Loaded(invocation, Status.PENDING, position=position, **known)


def leased(*letters: Loaded, is_careful: bool = False, **state: bytes) -> Lease:
    lease = Lease(("Mailbox", "mary"), is_careful=is_careful)
    lease.take(Inbox(list(letters), dict(state)), now=10.0)
    return lease


def always(_: Invocation) -> bool:
    return True


def never(_: Invocation) -> bool:
    return False


# Who starts


def test_letters_start_in_their_order_and_one_at_a_time() -> None:
    first, second = letter(1), letter(2)
    lease = leased(first, second)
    assert lease.next(never) is first
    lease.running = SOMEBODY
    assert lease.next(always) is None, "somebody has the key to itself"
    lease.running = None
    assert lease.next(never) is second
    assert lease.next(always) is None, "nobody is left"


def test_before_its_predecessor_is_committed_only_one_starts_that_speculates() -> None:
    lease = leased(letter(1))
    lease.uncommitted = 1
    assert lease.next(never) is None
    assert lease.next(always) is not None


@pytest.mark.parametrize(
    ("head", "is_careful"),
    [(letter(1, frames=b"journal"), False), (letter(1), True)],
    ids=["it has a journal to replay", "a flush of several was refused"],
)
def test_some_wait_for_their_predecessors_commit_whatever_they_say(head: Loaded, is_careful: bool) -> None:
    lease = leased(head, is_careful=is_careful)
    lease.uncommitted = 1
    assert lease.next(always) is None
    lease.uncommitted = 0
    assert lease.next(always) is head


def test_a_chain_of_uncommitted_ones_has_an_end() -> None:
    lease = leased(letter(1))
    lease.uncommitted = LONGEST_CHAIN
    assert lease.next(always) is None
    lease.uncommitted -= 1
    assert lease.next(always) is not None


def test_who_speculates_is_asked_about_the_head() -> None:
    head, second = letter(1), letter(2)
    lease = leased(head, second)
    lease.uncommitted = 1
    assert lease.next(lambda invocation: invocation is second.invocation) is None
    assert [*lease.letters.values()] == [head, second], "it keeps its place"
    assert lease.next(lambda invocation: invocation is head.invocation) is head


def test_one_that_is_put_back_is_next_again() -> None:
    first, second = letter(1), letter(2)
    lease = leased(first, second)
    lease.put_back(lease.next(never) or second)
    assert [lease.next(never), lease.next(never)] == [first, second]


def test_one_that_is_taken_out_of_the_inbox_leaves_the_others_in_their_order() -> None:
    first, taken, last = letter(1), letter(2), letter(3)
    lease = leased(first, taken, last)
    del lease.letters[taken.invocation.id]
    assert lease.next(never) is first
    assert lease.next(never) is last


# What is read


def test_the_watermark_rises_with_the_letters_and_stays_without_any() -> None:
    lease = leased(letter(3), letter(8))
    assert lease.watermark == 8
    lease.take(Inbox(), now=99.0)
    assert (lease.watermark, lease.used_at) == (8, 10.0)
    lease.take(Inbox([letter(9)]), now=99.0)
    assert (lease.watermark, lease.used_at, len(lease.letters)) == (9, 99.0, 3)


def test_the_database_tells_the_values_once_and_then_memory_knows_better() -> None:
    lease = leased(count=b"1")
    lease.apply(SetState("count", Value(b"2")))
    lease.take(Inbox(state={"count": b"1"}), now=11.0)
    assert lease.state == {"count": b"2"}


names = st.sampled_from("abc")
commands = st.one_of(
    st.builds(SetState, names, st.builds(Value, st.binary(max_size=2))),
    st.builds(ClearState, names),
    st.builds(ClearAllState),
    st.just(Run(1, name="a")),
)


@given(st.lists(commands))
def test_the_successor_sees_what_the_commands_left(written: list[Command]) -> None:
    lease = leased(a=b"old", z=b"old")
    expected = {"a": b"old", "z": b"old"}
    for command in written:
        lease.apply(command)
        match command:
            case SetState(key, Value(content)):
                expected = {**expected, key: content}
            case ClearState(key):
                expected = {name: value for name, value in expected.items() if name != key}
            case ClearAllState():
                expected = {}
            case _:
                pass
    assert lease.state == expected


# When it rests


def test_a_lease_rests_when_nothing_has_happened_for_a_while() -> None:
    lease = leased()
    lease.used_at = 10.0
    assert not lease.is_at_rest(since=10.0)
    assert lease.is_at_rest(since=10.1)


def test_one_that_was_never_read_does_not_rest() -> None:
    assert not Lease(("Mailbox", "mary")).is_at_rest(since=99.0)


@pytest.mark.parametrize("is_parked", [False, True])
def test_nothing_rests_that_runs_or_is_not_yet_committed(is_parked: bool) -> None:
    lease = leased()
    lease.is_parked = is_parked
    lease.running = SOMEBODY
    assert not lease.is_at_rest(since=99.0)
    lease.running, lease.uncommitted = None, 1
    assert not lease.is_at_rest(since=99.0)


def test_letters_keep_a_lease_unless_its_holder_sleeps() -> None:
    lease = leased(letter(1))
    assert not lease.is_at_rest(since=99.0)
    lease.is_parked = True
    assert lease.is_at_rest(since=0.0), "at once: nobody else may start"
