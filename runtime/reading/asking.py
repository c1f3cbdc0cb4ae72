"""Asking for what may be a needle in a haystack: with an eye to indexes, and with an end."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
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
    return await sync_to_async(_ask)(read, milliseconds)


async def ask_in_order(read: Callable[[bool], T], milliseconds: int) -> T:
    """As `ask`, for the first rows of an order, where `read` is told whether it may walk along that order.

    To walk is soon done where there are many of them, and takes long where they are rare or far away. To find all of
    them by what they have in common, and to sort them, is the other way round. The planner does not know which it is,
    so both are tried in turn, each for longer than the one before.
    """
    for haste, walks in ((HASTE_MS, True), (4 * HASTE_MS, False), (16 * HASTE_MS, True)):
        with contextlib.suppress(TookTooLong):
            return await ask(functools.partial(read, walks), haste)
    return await ask(functools.partial(read, False), milliseconds)


HASTE_MS = 20
# A new day's partition has no statistics yet: it would be scanned whole, and what follows be sorted.
BY_INDEX = {"enable_seqscan": "off", "jit": "off"}


def _ask(read: Callable[[], T], milliseconds: int) -> T:
    settings = {**BY_INDEX, "statement_timeout": str(milliseconds)}
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("; ".join(f"SET LOCAL {name} = {value}" for name, value in settings.items()))
            return read()
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != QUERY_CANCELED:
            raise
        raise TookTooLong(f"The database needs longer than {milliseconds / 1000:g} s.") from error
