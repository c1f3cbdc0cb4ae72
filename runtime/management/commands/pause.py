"""`manage.py pause`: let invocations go no further until they are resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from runtime.management.commands._verbs import VerbCommand
from runtime.steering import Verb
from runtime.store.verbs import Verdict


class Command(VerbCommand):
    help = (
        "Let invocations go no further until they are resumed or cancelled: at once, or when the steps that they are "
        "executing have given their results. Exits with 1 when one is unknown, has not started or has ended."
    )
    said: ClassVar = {
        Verdict.PAUSED: "paused",
        Verdict.ALREADY_PAUSED: "was paused already",
        Verdict.ASKED: "whoever runs it was told to pause it",
        Verdict.NOT_STARTED: "has not started yet: there is nothing to pause",
    }
    told = frozenset(said) - {Verdict.NOT_STARTED}

    def verb(self, options: Mapping[str, Any]) -> Verb:
        return Verb.PAUSE
