"""`manage.py kill`: end invocations at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from runtime.management.commands._verbs import VerbCommand
from runtime.steering import Verb
from runtime.store.verbs import Verdict


class Command(VerbCommand):
    help = (
        "End invocations at once, and their unfinished calls with them: nothing is undone, and what they committed "
        "stays. Try `cancel` first. Exits with 1 when one is unknown or has ended already."
    )
    said: ClassVar = {Verdict.DONE: "ended", Verdict.ASKED: "whoever runs it was told to drop it"}
    told = frozenset(said)

    def verb(self, options: Mapping[str, Any]) -> Verb:
        return Verb.KILL
