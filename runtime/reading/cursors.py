"""Cursors: where a page of a list ended, as a text that its reader hands back for the next one."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeVar

import msgspec

from runtime.errors import RuntimeFault

T = TypeVar("T")


class BadCursor(RuntimeFault):
    """This cursor was not given by a page of this list."""

    code = "bad_cursor"
    hint = "Take it from `next` of the page before, as it is; without one, the list begins anew."


def write(place: tuple[object, ...]) -> str:
    """A cursor from the values that the list is ordered by.

    >>> read(write(("Mailbox", "Mary")), tuple[str, str])
    ('Mailbox', 'Mary')
    """
    return urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def read(cursor: str, type: type[T]) -> T:
    """The values in it; raises BadCursor."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(urlsafe_b64decode(padded.encode("ascii")), type=type)
    except (msgspec.MsgspecError, binascii.Error, UnicodeError, ValueError) as error:
        raise BadCursor(f"{cursor[:100]!r} is no cursor of this list.") from error
