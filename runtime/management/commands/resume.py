"""`manage.py resume`: try paused or backing-off invocations again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

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
        Resumed.NO_SUCH_CODE: "cannot go on there: no such deployment has its service; `latest` is its newest",
        Resumed.CODE_DELETED: "cannot go on with the code that it had, which was deleted: say --deployment latest",
        Resumed.NO_SERVICE: "cannot go on: no deployment has its service; `register` one, then --deployment latest",
    }
    told = (Resumed.RESUMED,)

    takes_code = True

    def verb(self, options: Mapping[str, Any]) -> Verb:
        return Verb.RESUME
