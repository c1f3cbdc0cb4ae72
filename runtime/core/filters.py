"""Which invocations are meant, and in which order they are shown: what lists, counts and verbs by filter start from."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from runtime.core.invocation import Outcome, Status


class InvocationFilter(Struct, frozen=True, kw_only=True):
    """Those for which all of it is so; what is None or empty does not matter."""

    ids: tuple[bytes, ...] | None = None
    statuses: tuple[Status, ...] = ()
    """One of these."""
    outcomes: tuple[Outcome, ...] = ()
    """Ended, and in one of these ways."""
    service: str | None = None
    handler: str | None = None
    key: str | None = None
    deployment: str | None = None
    """The code that it began on; one that has not begun has none."""
    caller: bytes | None = None
    """The invocation that called it and awaits its result."""
    idempotency_key: str | None = None
    created_after: datetime | None = None
    """This moment, or later, as with every `after`."""
    created_before: datetime | None = None
    """Before this moment, as with every `before`."""
    modified_after: datetime | None = None
    modified_before: datetime | None = None
    due_after: datetime | None = None
    """Scheduled: it begins then; backing off: its next attempt does. Others are not due."""
    due_before: datetime | None = None
    failure: str | None = None
    """A text in the message of its failure, or of its last attempt's; capitals or not."""
    services: tuple[str, ...] | None = None
    """The only services whose invocations whoever asks may touch."""

    @property
    def bounds(self) -> tuple[str, ...] | None:
        """The only services that it can be about, among those of whoever asks; None: all.

        >>> InvocationFilter(service="Cart", services=("Cart", "Stock")).bounds
        ('Cart',)
        >>> InvocationFilter(service="Mailbox", services=("Cart", "Stock")).bounds  # which means none of theirs
        ('Cart', 'Stock')
        """
        if self.service is None or (self.services is not None and self.service not in self.services):
            return self.services
        return (self.service,)

    @property
    def may_be_alive(self) -> bool:
        """Whether one that has not ended can be meant."""
        return not self.outcomes and any(status is not Status.COMPLETED for status in self.statuses or Status)

    @property
    def may_have_ended(self) -> bool:
        """Whether one that has ended can be meant."""
        is_due = self.due_after is not None or self.due_before is not None
        return not is_due and (not self.statuses or Status.COMPLETED in self.statuses)


class Sort(StrEnum):
    """The order of a list; with a minus the latest first."""

    CREATED = "created"
    NEWEST = "-created"
    MODIFIED = "modified"
    LAST_MODIFIED = "-modified"
    DUE = "due"  # only those that are due some time
    LAST_DUE = "-due"

    @property
    def field(self) -> str:
        """Which time it is ordered by.

        >>> Sort.NEWEST.field
        'created'
        """
        return self.value.removeprefix("-")

    @property
    def is_descending(self) -> bool:
        return self.value.startswith("-")
