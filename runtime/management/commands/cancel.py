"""`manage.py cancel`: ask invocations to end."""

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
        "Ask invocations to end: the next thing each awaits fails with a 409, its outstanding calls are cancelled, and "
        "it may undo what it did. Exits with 1 when one is unknown or has ended already."
    )
    said: ClassVar = {Verdict.DONE: "ended before it started", Verdict.ASKED: "asked to end"}
    told = frozenset(said)

    async def verb(self, here: Operations, id: bytes, options: Mapping[str, Any]) -> str:
        return await steering.cancel(here, id, shell_user())
