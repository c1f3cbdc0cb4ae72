"""`manage.py cancel`: ask invocations to end."""

from __future__ import annotations

from runtime.management.commands._verbs import VerbCommand
from runtime.operations import Operations


class Command(VerbCommand):
    help = (
        "Ask invocations to end: the next thing each awaits fails with a 409, its outstanding calls are cancelled, and "
        "it may undo what it did. Exits with 1 when one is unknown or has ended already."
    )
    verb = Operations.cancel
    done = "ended before it started"
    asked = "asked to end"
