"""`manage.py kill`: end invocations at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from runtime import steering
from runtime.management.commands._output import shell_user
from runtime.management.commands._verbs import VerbCommand
from runtime.operations import Operations
from runtime.store.verbs import Verdict


class Command(VerbCommand):
    help = (
        "End invocations at once, and their unfinished calls with them: nothing is undone, and what they committed "
        "stays. Try `cancel` first. Exits with 1 when one is unknown or has ended already."
    )
    said: ClassVar = {Verdict.DONE: "ended", Verdict.ASKED: "whoever runs it was told to drop it"}
    told = frozenset(said)

    async def verb(self, here: Operations, id: bytes, options: Mapping[str, Any]) -> str:
        return await steering.kill(here, id, shell_user())
