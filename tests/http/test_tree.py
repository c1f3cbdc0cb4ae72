"""The call tree: who called an invocation, and whom it has called."""

from __future__ import annotations

import itertools
from typing import Any
from uuid import UUID

import pytest
from django.test import AsyncClient

from perdure.protocol.ids import format_id, parse_id
from perdure.protocol.messages import Call, CallInvocationIdCompletion, Entry, InvocationRef, OneWayCall
from runtime.core.invocation import Status
from runtime.models import Done, Invocation
from runtime.reading import tree
from runtime.reading.tree import Node, Relation
from tests.support import history

pytestmark = pytest.mark.usefixtures("client")


async def test_a_tree_goes_up_to_the_first_caller_and_down_to_the_last_one_called() -> None:
    leaf = await history.ended("Mail/send")
    middle = await history.alive("Pay/charge", status=Status.SUSPENDED, entries=[*call(leaf, "Mail/send")])
    sent = await history.ended("Audit/note")
    last = [*call(middle, "Pay/charge"), *send(sent, "Audit/note", slot=3)]
    root = await history.ended("Shop/order", last=last)
    await made_by(middle, caller=root)

    whole, above = await grown(root), await grown(middle)

    assert shape(whole.root) == ("Shop/order", [("Pay/charge", [("Mail/send", [])]), ("Audit/note", [])])
    assert [child.relation for child in whole.root.children] == [Relation.CALL, Relation.SEND]
    assert whole.root.children[0].summary is not None
    assert whole.root.children[0].summary.status == "suspended"
    assert (whole.count, whole.cut, whole.ancestors) == (4, None, [])
    assert [node.target for node in above.ancestors] == ["Shop/order"]
    assert (shape(above.root), above.count) == (("Pay/charge", [("Mail/send", [])]), 3)


async def test_a_deep_tree_is_cut_and_says_so() -> None:
    chain = [await history.ended("Chain/end")]
    for _ in range(3):
        chain.append(await history.ended("Chain/link", last=call(chain[-1], "Chain/link")))
    for callee, caller in itertools.pairwise(chain):
        await made_by(callee, caller=caller)

    down, up = await grown(chain[3], depth=2), await grown(chain[0], depth=2)

    assert shape(down.root) == ("Chain/link", [("Chain/link", [("Chain/link", [])])])
    assert down.root.children[0].children[0].left_out == 1
    assert down.cut == "Not in it: 1 call below, and what follows from them."
    assert len(up.ancestors) == 2
    assert up.cut == "Not in it: further callers above."


async def test_a_large_tree_is_cut_and_says_so() -> None:
    calls: list[Entry] = []
    for number in range(5):
        calls += call(await history.ended(), "Greeter/greet", slot=10 * number + 1)
    root = await history.ended("Fan/out", last=calls)

    found = await grown(root, limit=3)

    assert (len(found.root.children), found.root.left_out, found.count) == (2, 3, 3)
    assert found.cut == "Not in it: 3 calls below, and what follows from them."


async def test_large_journals_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST_BYTES", 10)
    root = await history.ended(last=call(await history.ended(), "Greeter/greet"))

    found = await grown(root)

    assert found.root.is_unread
    assert found.cut == "Not in it: the calls of 1 invocation with large journals."


async def test_what_several_call_stands_in_it_once_with_its_children() -> None:
    leaf = await history.ended("Mail/send")
    shared = await history.ended("Pay/charge", last=call(leaf, "Mail/send"))
    root = await history.ended("Shop/order", last=[*call(shared, "Pay/charge"), *call(shared, "Pay/charge", slot=5)])

    first, second = (await grown(root)).root.children

    assert (len(first.children), first.is_repeated) == (1, False)
    assert (len(second.children), second.is_repeated) == (0, True)


async def test_an_invocation_that_calls_itself_in_the_end_has_a_tree() -> None:
    id = format_id(UUID(int=77 << 64).bytes)
    await history.alive(id=UUID(bytes=parse_id(id)), entries=call(id, "Greeter/greet"), caller=UUID(bytes=parse_id(id)))

    found = await grown(id)

    assert [child.is_repeated for child in found.root.children] == [True]


async def test_what_is_not_kept_any_more_is_named_all_the_same() -> None:
    root = await history.ended(last=call(format_id(bytes(range(16))), "Mailbox/Mary/put"))

    (child,) = (await grown(root)).root.children

    assert (child.target, child.summary) == ("Mailbox/Mary/put", None)


async def test_other_services_are_not_looked_into_for_whoever_may_not_see_them() -> None:
    leaf = await history.ended("Mail/send")
    middle = await history.ended("Pay/charge", last=call(leaf, "Mail/send"))
    root = await history.ended("Shop/order", last=call(middle, "Pay/charge"))

    found = await tree.tree(parse_id(root), services=("Shop",))

    assert found is not None
    assert (shape(found.root), found.root.children[0].summary) == (("Shop/order", [("Pay/charge", [])]), None)
    assert await tree.tree(parse_id(middle), services=("Shop",)) is None


async def test_a_tree_is_shown_over_http(client: AsyncClient) -> None:
    leaf = await history.ended("Mail/send")
    root = await history.ended("Shop/order", last=call(leaf, "Mail/send"))

    shown = (await client.get(f"/invocations/{root}/tree?depth=1&limit=2")).json()

    assert shown["root"]["summary"]["outcome"] == "succeeded"
    assert [(child["id"], child["relation"]) for child in shown["root"]["children"]] == [(leaf, "call")]
    assert (await client.get(f"/invocations/{format_id(bytes(16))}/tree")).status_code == 404
    assert (await client.get(f"/invocations/{root}/tree?depth=0")).status_code == 400


async def grown(id: str, *, depth: int = 10, limit: int = 100) -> tree.Tree:
    found = await tree.tree(parse_id(id), depth=depth, limit=limit)
    assert found is not None
    return found


def shape(node: Node) -> tuple[str | None, list[Any]]:
    return node.target, [shape(child) for child in node.children]


def call(id: str, target: str, slot: int = 1) -> list[Entry]:
    service, *key, handler = target.split("/")
    asked = Call(service, handler, b"", slot, slot + 1, key=key[0] if key else "")
    return [asked, CallInvocationIdCompletion(slot, InvocationRef(id))]


def send(id: str, target: str, slot: int = 1) -> list[Entry]:
    service, handler = target.split("/")
    return [OneWayCall(service, handler, b"", slot), CallInvocationIdCompletion(slot, InvocationRef(id))]


async def made_by(id: str, *, caller: str) -> None:
    for model in (Invocation, Done):
        await model.objects.filter(id=UUID(bytes=parse_id(id))).aupdate(caller=UUID(bytes=parse_id(caller)))
