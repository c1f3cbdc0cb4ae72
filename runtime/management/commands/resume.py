"""`manage.py resume`: try paused or backing-off invocations again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.management.base import CommandParser

from runtime import steering
from runtime.management.commands._verbs import VerbCommand
from runtime.steering import Verb
from runtime.store.resume import Resumed


class Command(VerbCommand):
    help = (
        "Try paused or backing-off invocations again now, with their count of failed attempts begun anew. What the "
        "code does differently than the journal pauses them again. Exits with 1 when one cannot be resumed."
    )
    said: ClassVar = {
        Resumed.RESUMED: "will be tried again",
        Resumed.NOT_STARTED: "has not started yet: there is nothing to resume",
        Resumed.AT_WORK: "is neither paused nor backing off",
        Resumed.NO_SUCH_CODE: "cannot go on there: no such deployment has its service",
    }
    told = (Resumed.RESUMED,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--deployment",
            default=steering.KEEP,
            metavar="ID",
            help="the code to go on with: `keep` (what it had; the default), `latest`, or a deployment's id",
        )
        super().add_arguments(parser)

    def verb(self, options: Mapping[str, Any]) -> Verb:
        return Verb.RESUME
