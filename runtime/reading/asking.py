"""Asking for what may be a needle in a haystack: with an eye to indexes, and with an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, transaction

from runtime.errors import RuntimeFault

T = TypeVar("T")

QUERY_CANCELED = "57014"  # PostgreSQL's code for it


class TookTooLong(RuntimeFault):
    """The database has not found it in the time that it had."""

    code = "took_too_long"
    hint = "Narrow it by a service, a key or a range of times."


async def ask(read: Callable[[], T], milliseconds: int) -> T:
    """What `read` reads through the ORM, if the database needs no longer for any statement. Raises TookTooLong."""
    return await sync_to_async(_ask)(read, milliseconds)


def _ask(read: Callable[[], T], milliseconds: int) -> T:
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                # A new day's partition has no statistics yet: it would be scanned whole, and what follows be sorted.
                cursor.execute(
                    f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL enable_seqscan = off; SET LOCAL jit = off"
                )
            return read()
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != QUERY_CANCELED:
            raise
        raise TookTooLong(f"The database needs longer than {milliseconds / 1000:g} s.") from error
