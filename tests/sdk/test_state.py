"""An object's values as its handlers read and write them."""

from __future__ import annotations

import pytest

from perdure import DefinitionError, Endpoint, ObjectContext, VirtualObject, handler
from perdure.protocol import messages as m
from tests.sdk.shop import Shelf
from tests.sdk.support import Stage, output

pytestmark = pytest.mark.usefixtures("own_world")


async def test_known_values_are_read_without_waiting_and_the_runtimes_map_is_left_alone() -> None:
    values = {"count": b"2"}
    stage = await Stage(Shelf, "add", 3, key="shoes", state_map=values).begin()
    read, write = m.GetEagerState("count", m.Value(b"2")), m.SetState("count", m.Value(b"5"))
    assert stage.emitted == [read, write, *output(5)]
    assert values == {"count": b"2"}


async def test_values_of_a_partial_state_are_asked_for() -> None:
    stage = await Stage(Shelf, "add", 3, key="shoes", partial_state=True).begin()
    assert stage.emitted == [m.GetLazyState("count", 1)]
    stage.deliver(m.GetLazyStateCompletion(1, m.Value(b"2")))
    assert (await stage.settle()).emitted[1:] == [m.SetState("count", m.Value(b"5")), *output(5)]


async def test_a_read_answered_lazily_once_may_be_answered_eagerly_in_a_replay() -> None:
    journal = [m.Input(m.Value(b"3")), m.GetLazyState("count", 1), m.GetLazyStateCompletion(1, m.Value(b"2"))]
    stage = await Stage(Shelf, "add", key="shoes", journal=journal, state_map={"count": b"9"}).begin()
    assert stage.emitted == [m.SetState("count", m.Value(b"5")), *output(5)]


async def test_own_writes_are_seen() -> None:
    stage = await Stage(Shelf, "tidy", key="k", state_map={"old": b"1", "rest": b"2"}).begin()
    seen = [["old", "rest"], [None, None, ["new", "rest"]], ["octets"], "k", [255]]
    assert stage.emitted[-2:] == output(seen)


async def test_a_shared_handler_reads_but_cannot_write() -> None:
    assert (await Stage(Shelf, "look", key="k", state_map={"count": b"4"}).begin()).emitted[-2:] == output(4)
    [error] = (await Stage(Shelf, "meddle", key="k").begin()).emitted
    assert isinstance(error, m.Error)
    assert "ctx.set changes the object, and a shared handler only reads" in error.message


def test_a_manifest_says_which_values_come_with_a_call() -> None:
    class Archive(VirtualObject, lazy_state=True):
        @handler
        async def read(self, ctx: ObjectContext) -> None: ...

        @handler(eager_keys=["title"])
        async def title(self, ctx: ObjectContext) -> None: ...

        @handler(lazy_state=False)
        async def all(self, ctx: ObjectContext) -> None: ...

    [archive] = Endpoint(Archive).manifest().services
    assert archive.enable_lazy_state
    said = [(described.enable_lazy_state, described.eager_state_keys_whitelist) for described in archive.handlers]
    assert said == [(None, None), (None, ("title",)), (False, None)]


def test_eager_keys_are_several() -> None:
    with pytest.raises(DefinitionError, match=r"write eager_keys=\['title'\]"):

        class Archive(VirtualObject, eager_keys="title"):
            @handler
            async def read(self, ctx: ObjectContext) -> None: ...
