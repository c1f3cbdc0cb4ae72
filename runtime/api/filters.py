"""Which invocations are meant, as requests say it: in the parameters of a list, or in the body of a verb by filter."""

from __future__ import annotations

from typing import Annotated

from ninja import Schema
from pydantic import AwareDatetime, Field

from perdure.protocol.ids import parse_id
from runtime.core.access import Actor
from runtime.core.filters import InvocationFilter
from runtime.core.invocation import Outcome, Status

Text = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]
"""What PostgreSQL can be asked for: any text without NUL."""


class Filter(Schema, extra="forbid"):
    """Those for which all of it is so. `after` is this moment or later, `before` is before it."""

    id: tuple[Text, ...] | None = Field(None, max_length=1000)
    """One of these."""
    status: tuple[Status, ...] = ()
    """One of these."""
    outcome: tuple[Outcome, ...] = ()
    """Ended, and in one of these ways."""
    service: Text | None = None
    handler: Text | None = None
    key: Text | None = None
    deployment: Text | None = None
    """The code that it began on."""
    caller: Text | None = None
    """The id of the invocation that called it and awaits its result."""
    idempotency_key: Text | None = None
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    modified_after: AwareDatetime | None = None
    modified_before: AwareDatetime | None = None
    due_after: AwareDatetime | None = None
    """Scheduled sends that begin then, and retries that are made then."""
    due_before: AwareDatetime | None = None
    failure: Text | None = None
    """A text in the message of its failure, or of its last attempt's; capitals or not."""

    def within(self, by: Actor) -> InvocationFilter:
        """As the runtime takes it, within the services that somebody may touch. Raises InvalidInvocationId."""
        as_it_is = self.dict(include=Filter.model_fields.keys() - {"id", "status", "outcome", "caller"})
        return InvocationFilter(
            **as_it_is,
            ids=None if self.id is None else tuple(map(parse_id, self.id)),
            statuses=self.status,
            outcomes=self.outcome,
            caller=None if self.caller is None else parse_id(self.caller),
            services=None if by.services is None else tuple(sorted(by.services)),
        )
