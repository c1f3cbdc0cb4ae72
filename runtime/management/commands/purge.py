"""`manage.py purge`: forget invocations that have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.management.base import CommandParser

from runtime.management.commands._verbs import VerbCommand
from runtime.steering import Verb
from runtime.store.purge import Purged


class Command(VerbCommand):
    help = (
        "Forget invocations that have ended, with their results and idempotency keys, or only what they did. Exits "
        "with 1 when one is unknown or has not ended."
    )
    said: ClassVar = {
        Purged.PURGED: "purged",
        Purged.NOT_ENDED: "has not ended yet: cancel or kill it first",
    }
    told = (Purged.PURGED,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--journal", action="store_true", help="only the journal and the input; results stay")
        super().add_arguments(parser)

    def verb(self, options: Mapping[str, Any]) -> Verb:
        return Verb.PURGE_JOURNAL if options["journal"] else Verb.PURGE
