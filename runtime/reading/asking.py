"""Asking for what may be a needle in a haystack: with an eye to indexes, and with an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, transaction

from runtime.errors import RuntimeFault

T = TypeVar("T")

PATIENCE_MS = 5_000
"""How long a person waits for a list."""

QUERY_CANCELED = "57014"  # PostgreSQL's code for it


class TookTooLong(RuntimeFault):
    """The database has not found it in the time that it had."""

    code = "took_too_long"
    hint = "Narrow it by a service, a key or a range of times."


async def ask(read: Callable[[], T], milliseconds: int) -> T:
    """What `read` reads through the ORM, if the database needs no longer for any statement. Raises TookTooLong."""
    return await sync_to_async(_ask)(read, milliseconds, BY_INDEX)


async def ask_in_order(read: Callable[[], T], milliseconds: int) -> T:
    """As `ask`, for the first rows of an order.

    The planner walks along the order where it reckons with finding enough of them soon. Where that takes long, they
    are rare or far away: then all of them are found by what they have in common, and sorted.
    """
    try:
        return await sync_to_async(_ask)(read, HASTE_MS, BY_INDEX)
    except TookTooLong:
        return await sync_to_async(_ask)(read, milliseconds, BY_INDEX | NOT_IN_ORDER)


HASTE_MS = 250
# A new day's partition has no statistics yet: it would be scanned whole, and what follows be sorted.
BY_INDEX = {"enable_seqscan": "off", "jit": "off"}
NOT_IN_ORDER = {"enable_indexscan": "off", "enable_indexonlyscan": "off"}  # leaves bitmaps of indexes


def _ask(read: Callable[[], T], milliseconds: int, planner: Mapping[str, str]) -> T:
    settings = {**planner, "statement_timeout": str(milliseconds)}
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("; ".join(f"SET LOCAL {name} = {value}" for name, value in settings.items()))
            return read()
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != QUERY_CANCELED:
            raise
        raise TookTooLong(f"The database needs longer than {milliseconds / 1000:g} s.") from error
