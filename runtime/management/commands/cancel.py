"""`manage.py cancel`: ask invocations to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from runtime.management.commands._verbs import VerbCommand
from runtime.steering import Verb
from runtime.store.verbs import Verdict


class Command(VerbCommand):
    help = (
        "Ask invocations to end: the next thing each awaits fails with a 409, its outstanding calls are cancelled, and "
        "it may undo what it did. Exits with 1 when one is unknown or has ended already."
    )
    said: ClassVar = {Verdict.DONE: "ended before it started", Verdict.ASKED: "asked to end"}
    told = frozenset(said)

    def verb(self, options: Mapping[str, Any]) -> Verb:
        return Verb.CANCEL
