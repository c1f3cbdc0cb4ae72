"""Keys: whoever comes while a key is given back finds an engine, inboxes fill in the order of the commits."""

from __future__ import annotations

import asyncio
import random

import pytest

from runtime.store.claim import Claim, Inbox, load_inboxes
from runtime.store.commit import commit
from runtime.store.link import Link
from tests.support.sessions import (
    QUEUE,
    WITHIN,
    Sessions,
    begun,
    born,
    ended,
    key_of,
    letter,
    open_flush,
    parked,
    told,
)

KEY = ("Counter", "k")
EVERYTHING = Claim(
    room=100, floor=0, queues=[QUEUE], services={"Counter": "code", "Greeter": "code"}, deployments=["code"]
)


@pytest.fixture
async def engine(sessions: Sessions) -> bytes:
    return await sessions.engine()


@pytest.fixture
async def link(sessions: Sessions) -> Link:
    return await sessions.link()


@pytest.fixture
async def caller(sessions: Sessions) -> Link:
    return await sessions.link()


async def at_rest(sessions: Sessions, engine: bytes) -> None:
    """The engine leases the key, and its inbox is empty."""
    link, one = await sessions.link(), letter()
    await commit(link, [born(one, owner=engine)])
    await commit(link, [ended(one, position=await sessions.position(one))], engine=engine)


# Giving back against coming in


async def test_a_key_that_waits_for_somebody_who_comes_in_is_not_given_back(
    sessions: Sessions, engine: bytes, link: Link, caller: Link
) -> None:
    await at_rest(sessions, engine)
    one = letter()

    async with open_flush(caller, born(one)) as receipt:
        release = await sessions.blocked(commit(link, [], engine=engine, release=[KEY]), link, by=caller)

    assert (await release).released == set()
    assert receipt.keys == {KEY: engine}
    assert await sessions.lease(KEY) == engine
    assert await sessions.inbox(KEY) == [one.id]


async def test_who_waits_for_a_key_to_be_given_back_brings_it_to_the_queue(
    sessions: Sessions, engine: bytes, link: Link, caller: Link
) -> None:
    await at_rest(sessions, engine)
    one = letter()

    async with open_flush(link, engine=engine, release=[KEY]) as receipt:
        entry = await sessions.blocked(commit(caller, [born(one)]), caller, by=link)

    assert receipt.released == {KEY}
    assert (await entry).keys == {KEY: None}
    assert await sessions.lease(KEY) is None
    assert await sessions.queued() == [KEY]


async def test_who_waits_for_a_key_to_be_given_back_may_bring_it_to_another_engine(
    sessions: Sessions, engine: bytes, link: Link, caller: Link
) -> None:
    await at_rest(sessions, engine)
    other = await sessions.engine()

    async with open_flush(link, engine=engine, release=[KEY]):
        entry = await sessions.blocked(commit(caller, [born(letter(), owner=other)]), caller, by=link)

    assert (await entry).keys == {KEY: other}
    assert await sessions.queued() == []


async def test_a_key_stays_leased_when_its_giving_back_is_undone(
    sessions: Sessions, engine: bytes, link: Link, caller: Link
) -> None:
    await at_rest(sessions, engine)

    with pytest.raises(ZeroDivisionError):
        async with open_flush(link, engine=engine, release=[KEY]):
            entry = await sessions.blocked(commit(caller, [born(letter())]), caller, by=link)
            raise ZeroDivisionError

    assert (await entry).keys == {KEY: engine}
    assert await sessions.queued() == []


async def test_a_flush_that_gives_a_key_back_and_sends_to_it_keeps_it(
    sessions: Sessions, engine: bytes, link: Link
) -> None:
    await at_rest(sessions, engine)

    receipt = await commit(link, [born(letter())], engine=engine, release=[KEY])

    assert receipt.released == set()
    assert await sessions.lease(KEY) == engine


async def test_a_sleepers_key_given_back_wakes_with_it(
    sessions: Sessions, engine: bytes, link: Link, caller: Link
) -> None:
    """Whoever comes in behind one that sleeps makes no row in the queue: its awakening does."""
    sleeper, next_one = letter(), letter()
    await commit(link, [born(sleeper, owner=engine)])
    await commit(link, [begun(sleeper)], engine=engine)

    async with open_flush(link, parked(sleeper, waits=[1]), engine=engine):
        entry = await sessions.blocked(commit(caller, [born(next_one)]), caller, by=link)
    assert (await entry).keys == {KEY: None}
    assert await sessions.queued() == []

    await commit(caller, [told(sleeper, 1)])
    assert await sessions.queued() == [KEY]
    claimed = (await commit(link, [], engine=engine, wanted=EVERYTHING)).claimed
    assert claimed.keys == [KEY]
    assert await sessions.inbox(KEY) == [sleeper.id, next_one.id]


async def test_another_engines_key_is_not_given_back(sessions: Sessions, engine: bytes, link: Link) -> None:
    await at_rest(sessions, engine)

    receipt = await commit(link, [], engine=await sessions.engine(), release=[KEY])

    assert receipt.released == set()
    assert await sessions.lease(KEY) == engine


# Order


async def test_places_in_an_inbox_are_taken_in_the_order_of_the_commits(sessions: Sessions) -> None:
    """The one that began first waits for its other key: it comes in behind, though its flush is the elder."""
    holder, slow, quick = await sessions.connection(), await sessions.link(), await sessions.link()
    await commit(slow, [born(letter("a"))])  # a sequence that is cached by session would now go on with the elder's
    await commit(quick, [born(letter("k"))])
    await holder.execute("SELECT FROM object_key WHERE key = 'a' FOR UPDATE")
    first, second, third = letter(), letter(), letter()

    late = await sessions.blocked(commit(slow, [born(letter("a"), first)]), slow, by=holder)
    async with open_flush(quick, born(second)):
        last = await sessions.link()
        behind = await sessions.blocked(commit(last, [born(third)]), last, by=quick)
    await behind
    await holder.rollback()
    await late

    assert (await sessions.inbox(KEY))[1:] == [second.id, third.id, first.id]


async def test_a_reader_misses_nobody_behind_its_watermark(sessions: Sessions, engine: bytes, link: Link) -> None:
    await at_rest(sessions, engine)
    sent, seen = set[bytes](), list[tuple[int, bytes]]()
    submitters = [await sessions.link() for _ in range(4)]

    async def submit(submitter: Link) -> None:
        for _ in range(40):
            batch = [letter() for _ in range(random.randint(1, 4))]
            await commit(submitter, [born(*batch)])
            sent.update(one.id for one in batch)

    async def read() -> None:
        watermark = seen[-1][0] if seen else 0
        inbox = (await load_inboxes(link, engine, {KEY: watermark}, []))[KEY]
        seen.extend((one.position or 0, one.invocation.id) for one in inbox.letters)

    submitting = sessions.start(gather(*map(submit, submitters)))
    while not submitting.done():
        await read()
    await submitting
    await read()

    assert {id for _, id in seen} == sent
    assert len(seen) == len(sent)
    assert [position for position, _ in seen] == sorted(position for position, _ in seen)


async def test_letters_of_one_flush_keep_the_order_in_which_they_were_sent(sessions: Sessions, link: Link) -> None:
    letters = [letter(key) for key in "kakbkkabk"]
    random.shuffle(letters)

    await commit(link, [born(*letters[:4]), born(*letters[4:])])

    for key in "kab":
        assert await sessions.inbox(("Counter", key)) == [one.id for one in letters if one.key == key]


async def test_an_inbox_is_read_by_its_keys_engine_only(sessions: Sessions, engine: bytes, link: Link) -> None:
    one = letter()
    await commit(link, [born(one, owner=engine)])

    assert await load_inboxes(link, await sessions.engine(), {KEY: 0}, []) == {}
    inbox: Inbox = (await load_inboxes(link, engine, {KEY: 0}, []))[KEY]
    assert [letter.invocation.id for letter in inbox.letters] == [one.id]


# The order of locks


async def test_flushes_lock_their_keys_in_one_order(sessions: Sessions) -> None:
    """While both wait for the first key, nobody has the second."""
    holder, left, right = await sessions.connection(), await sessions.link(), await sessions.link()
    await commit(left, [born(letter("a"), letter("b"))])
    await holder.execute("SELECT FROM object_key WHERE key = 'a' FOR UPDATE")

    there = await sessions.blocked(commit(left, [born(letter("a"), letter("b"))]), left, by=holder)
    back = await sessions.blocked(commit(right, [born(letter("b"), letter("a"))]), right, by=left)
    await sessions.execute("SELECT FROM object_key WHERE key = 'b' FOR UPDATE NOWAIT")
    await holder.rollback()

    await there
    await back
    assert len(await sessions.inbox(("Counter", "a"))) == len(await sessions.inbox(("Counter", "b"))) == 3


async def test_giving_back_and_coming_in_lock_their_keys_in_one_order(sessions: Sessions, engine: bytes) -> None:
    """With many keys and stale statistics a join would lock them as they lie in the table."""
    holder, link, caller = await sessions.connection(), await sessions.link(), await sessions.link()
    names = [f"{number:03}" for number in range(60)]
    await commit(link, [born(*map(letter, reversed(names)), owner=engine)])
    await holder.execute("SELECT FROM object_key WHERE key = '000' FOR UPDATE")
    keys = [("Counter", name) for name in names]

    release = await sessions.blocked(commit(link, [], engine=engine, release=keys[::-1]), link, by=holder)
    entry = await sessions.blocked(commit(caller, [born(*map(letter, reversed(names)))]), caller, by=link)
    free = await sessions.rows("SELECT key FROM object_key FOR UPDATE SKIP LOCKED")
    await holder.rollback()

    assert len(free) == len(names) - 1
    await release
    await entry


async def test_many_who_come_in_by_the_same_keys_never_deadlock(sessions: Sessions, engine: bytes) -> None:
    await at_rest(sessions, engine)
    names = [f"{number:02}" for number in range(20)]
    submitters = [await sessions.link() for _ in range(4)]

    async def submit(submitter: Link) -> None:
        for _ in range(25):
            letters = [letter(name) for name in random.sample(names, 8)]
            await commit(submitter, [born(one) for one in letters])  # raises 40P01, had there been one

    async with asyncio.timeout(WITHIN * 2):
        await gather(*map(submit, submitters))

    assert await sessions.count("inbox") == 4 * 25 * 8


# Claims


async def test_engines_do_not_wait_for_one_another_at_the_queue(sessions: Sessions, engine: bytes, link: Link) -> None:
    other, second = await sessions.engine(), await sessions.link()
    elder, younger = letter("a"), letter("b")
    await commit(link, [born(elder), born(younger)])
    one = Claim(1, 0, EVERYTHING.queues, EVERYTHING.services, EVERYTHING.deployments)

    async with asyncio.timeout(WITHIN), open_flush(link, engine=engine, wanted=one) as receipt:
        taken = (await commit(second, [], engine=other, wanted=EVERYTHING)).claimed

    assert (receipt.claimed.keys, taken.keys) == ([key_of(elder)], [key_of(younger)])
    assert await sessions.queued() == []


async def test_a_key_that_was_leased_meanwhile_is_not_taken_from_the_queue(
    sessions: Sessions, engine: bytes, link: Link
) -> None:
    await commit(link, [born(letter())])
    await sessions.execute("INSERT INTO ready (queue, service, key) VALUES (%s, 'Counter', 'k')", QUEUE)
    one = Claim(1, 0, EVERYTHING.queues, EVERYTHING.services, EVERYTHING.deployments)
    other, second = await sessions.engine(), await sessions.link()

    async with open_flush(link, engine=engine, wanted=one) as receipt:
        claim = await sessions.blocked(commit(second, [], engine=other, wanted=EVERYTHING), second, by=link)

    assert receipt.claimed.keys == [KEY]
    assert (await claim).claimed.keys == []
    assert await sessions.lease(KEY) == engine


async def gather(*works: object) -> None:
    await asyncio.gather(*works)  # type: ignore[call-overload]
