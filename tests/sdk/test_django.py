"""`perdure.django`: what a Django application sends is part of its own transaction."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction

from perdure import Context, Service, UsageError, handler
from perdure.django import OutboxUnavailable, invocation_id, send
from runtime.registering import register_module
from runtime.store.link import Link
from tests.support.servers import ROOT


class Stranger(Service):
    @handler
    async def greet(self, ctx: Context) -> None:
        return None


@pytest.fixture
def orders(our_database: str) -> Any:
    """The example, its model's table made and its endpoint registered."""
    from examples import orders

    async def register() -> None:
        link = await Link.connect(our_database)
        await register_module("examples.orders:app", link)
        link.close()

    asyncio.run(register())
    with connection.schema_editor() as editor:
        editor.create_model(orders.Order)
    return orders


def outbox() -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT service, handler, key, convert_from(payload, 'UTF8'), perdure_invocation_id(id), idempotency_key,"
            " due_at > clock_timestamp() FROM outbox ORDER BY position"
        )
        return list(cursor.fetchall())


def test_an_order_and_its_message_are_committed_together(orders: Any) -> None:
    id = orders.order("Mary", "shoe", in_stock=1)
    assert orders.Order.objects.count() == 1
    assert outbox() == [("Customer", "ordered", "Mary", '"shoe"', id, None, None)]


def test_an_order_and_its_message_are_rolled_back_together(orders: Any) -> None:
    with pytest.raises(LookupError):
        orders.order("Mary", "shoe", in_stock=0)
    assert orders.Order.objects.count() == 0
    assert outbox() == []


def test_an_application_that_is_cut_off_before_its_commit_leaves_neither(orders: Any) -> None:
    with contextlib.suppress(DatabaseError), transaction.atomic():
        orders.Order.objects.create(who="Mary", item="shoe")
        send(orders.Customer, "Mary").ordered("shoe")
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    connection.close()
    assert orders.Order.objects.count() == 0
    assert outbox() == []


def test_an_inner_block_that_fails_takes_only_its_own_messages(orders: Any) -> None:
    with transaction.atomic():
        send(orders.Customer, "Mary").ordered("shoe")
        with contextlib.suppress(DatabaseError), transaction.atomic():
            send(orders.Customer, "Mary").ordered("hat")
            send(Stranger).greet()
    assert [row[3] for row in outbox()] == ['"shoe"']


def test_without_a_transaction_a_message_is_sent_at_once(orders: Any) -> None:
    later = timedelta(minutes=5)
    id = invocation_id(send(orders.Customer, "Mary", delay=later, idempotency_key="one").ordered("shoe"))
    connections.close_all()
    assert outbox() == [("Customer", "ordered", "Mary", '"shoe"', id, "one", True)]


def test_what_is_due_already_is_sent_at_once(orders: Any) -> None:
    send(orders.Customer, "Mary", delay=timedelta(seconds=-1)).ordered("shoe")
    assert [row[-1] for row in outbox()] == [None]


def test_a_service_may_be_named(orders: Any) -> None:
    send("Customer", "Mary").ordered("shoe")
    assert [row[:4] for row in outbox()] == [("Customer", "ordered", "Mary", '"shoe"')]


def test_what_is_wrong_is_said_at_the_call(orders: Any) -> None:
    with pytest.raises(DatabaseError, match='There is no service "Stranger"'):
        send(Stranger).greet()
    with pytest.raises(DatabaseError, match='"ordered" needs a key'):
        send("Customer").ordered("shoe")
    with pytest.raises(UsageError, match=r"write timedelta\(seconds=5\)"):
        send(orders.Customer, "Mary", delay=5)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="takes one argument"):
        send(orders.Customer, "Mary").ordered()


def test_a_database_without_perdure_says_so(orders: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER FUNCTION perdure_send_bytes RENAME TO perdure_send_elsewhere")
    with pytest.raises(OutboxUnavailable, match="no Perdure in the database 'default'"):
        send(orders.Customer, "Mary").ordered("shoe")


def test_a_role_that_was_not_granted_it_is_told_what_to_ask_for(orders: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE pg_monitor")
        with pytest.raises(OutboxUnavailable, match="GRANT EXECUTE ON FUNCTION perdure_send_bytes TO"):
            send(orders.Customer, "Mary").ordered("shoe")


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "sdk" / "README.md").read_text()
    (block,) = [part.partition("```")[0] for part in page.split("```py\n")[1:]]
    assert block in Path(ROOT / "sdk" / "examples" / "orders.py").read_text()
