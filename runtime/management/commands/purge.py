"""`manage.py purge`: forget invocations that have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.core.management.base import CommandParser

from runtime import steering
from runtime.management.commands._output import shell_user
from runtime.management.commands._verbs import VerbCommand
from runtime.operations import Operations
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

    async def verb(self, here: Operations, id: bytes, options: Mapping[str, Any]) -> str:
        purge = steering.purge_journal if options["journal"] else steering.purge
        return await purge(here, id, shell_user())
