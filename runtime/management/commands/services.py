"""`manage.py services`: what is registered."""

from __future__ import annotations

from typing import Any

from asgiref.sync import async_to_sync

from runtime.management.commands._output import OurCommand, in_words
from runtime.reading.services import Served, services


class Command(OurCommand):
    help = "List the registered services, their handlers, and the code that takes their new invocations."

    def handle(self, *args: Any, **options: Any) -> None:
        with in_words():
            found = async_to_sync(services)()
        if options["json"]:
            self.json(found)
        elif not found:
            self.stderr.write(
                "No service is registered. `./dev manage register MODULE:ATTRIBUTE` adds those of an endpoint."
            )
        else:
            self.table(["SERVICE", "TYPE", "REVISION", "CODE", "HANDLERS"], [_row(served) for served in found])
            if idle := {served.location: None for served in found if not served.is_loaded}:
                self.stderr.write(
                    "Not served: what is invoked there waits, for no engine has loaded the code. "
                    f"Load it with: ./dev up --services {','.join(idle)}"
                )


def _row(served: Served) -> list[str]:
    info = served.info
    type = info.type.lower().replace("_", " ")
    code = f"{served.location} ({info.deployment})" if served.is_loaded else f"not served: {served.location}"
    return [info.name, type, str(info.revision), code, " ".join(info.handlers)]
