"""`manage.py cancel`: ask invocations to end."""

from __future__ import annotations

from runtime import steering
from runtime.management.commands._verbs import VerbCommand


class Command(VerbCommand):
    help = (
        "Ask invocations to end: the next thing each awaits fails with a 409, its outstanding calls are cancelled, and "
        "it may undo what it did. Exits with 1 when one is unknown or has ended already."
    )
    verb = steering.cancel
    done = "ended before it started"
    asked = "asked to end"
