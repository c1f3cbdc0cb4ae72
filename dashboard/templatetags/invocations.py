"""How templates write what belongs to an invocation."""

from __future__ import annotations

from datetime import datetime

import msgspec
from django import template
from django.utils import timezone

from dashboard.queries import call_path as call_path_of
from runtime.core.registry import HandlerInfo
from runtime.reading.invocations import Summary
from runtime.reading.journal import Entry

register = template.Library()


@register.filter
def badge(summary: Summary) -> str:
    """What its badge says: where it stands, or how it ended. The style sheet has a colour for each."""
    return summary.outcome or summary.status


@register.filter
def ago(moment: datetime) -> str:
    """How long ago something was, as short as it is still useful."""
    return since(moment, timezone.now())


@register.filter
def took(summary: Summary) -> str:
    """From its creation to its end; of one that has not ended nothing, for it may have waited all the time."""
    if summary.completed_at is None:
        return ""
    seconds = (summary.completed_at - summary.created_at).total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else _rough(seconds)


@register.filter
def details(entry: Entry) -> str:
    """What a journal's entry says, in JSON."""
    return msgspec.json.encode(entry.details).decode() if entry.details else ""


@register.filter
def call_path(handler: HandlerInfo) -> str:
    return call_path_of(handler)


def since(moment: datetime, now: datetime) -> str:
    """The same, of a given now.

    >>> from datetime import UTC
    >>> since(datetime(2026, 1, 1, 12, 0, tzinfo=UTC), datetime(2026, 1, 1, 12, 5, 30, tzinfo=UTC))
    '5 min ago'
    """
    seconds = (now - moment).total_seconds()
    return "now" if seconds < 1 else f"{_rough(seconds)} ago"


def _rough(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"
