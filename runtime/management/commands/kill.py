"""`manage.py kill`: end invocations at once."""

from __future__ import annotations

from runtime import steering
from runtime.management.commands._verbs import VerbCommand


class Command(VerbCommand):
    help = (
        "End invocations at once, and their unfinished calls with them: nothing is undone, and what they committed "
        "stays. Try `cancel` first. Exits with 1 when one is unknown or has ended already."
    )
    verb = steering.kill
    done = "ended"
    asked = "whoever runs it was told to drop it"
