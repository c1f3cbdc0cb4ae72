"""`manage.py deployments`: which code there is, and forgetting some of it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from runtime.conf import settings
from runtime.core.audit import Act
from runtime.management.commands._output import OurCommand, in_words, moment, run, shell_user
from runtime.reading.deployments import Known, bound, deployment, deployments
from runtime.store.deployments import Deleted, UnknownDeployment, delete_deployment
from runtime.store.link import Link


class Command(OurCommand):
    help = "List the deployments, look at one, or delete it. `register` adds to them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="?", metavar="ID", help="one deployment, as in dp_…")
        parser.add_argument("--delete", action="store_true", help="forget it, and the services that it serves")
        parser.add_argument("--force", action="store_true", help="also while invocations under way are bound to it")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        id: str | None = options["id"]
        if options["delete"]:
            if id is None:
                raise CommandError("Which deployment? Name its ID.", returncode=2)
            self.tell_deleted(run(delete(id, force=options["force"])), as_json=options["json"])
        elif id is not None:
            self.show(id, as_json=options["json"])
        else:
            self.list(as_json=options["json"])

    def list(self, *, as_json: bool) -> None:
        with in_words():
            found = async_to_sync(deployments)()
        if as_json:
            self.json(found)
        elif not found:
            self.stderr.write("Nothing is registered. `./dev manage register ENDPOINT` adds one.")
        else:
            self.table(["DEPLOYMENT", "LOCATION", "CREATED", "ENGINES", "SERVES"], [_row(known) for known in found])

    def show(self, id: str, *, as_json: bool) -> None:
        with in_words():
            known = async_to_sync(deployment)(id)
            if known is None:
                raise UnknownDeployment(f"There is no deployment {id!r}.")
            invocations = async_to_sync(bound)(id)
        if as_json:
            self.json({"deployment": known, "invocations": invocations})
            return
        said = dict(zip(("deployment", "location", "created", "engines", "serves"), _row(known), strict=True))
        said |= {"offers": " ".join(info.name for info in known.offers), "bound": f"{invocations} invocations"}
        if known.reached is not None:
            said["driven"] = known.reached.words
            said |= {f"metadata {name}": value for name, value in known.reached.metadata.items()}
        for name, value in said.items():
            self.stdout.write(f"{name:<11} {value}")

    def tell_deleted(self, deleted: Deleted, *, as_json: bool) -> None:
        if as_json:
            self.json(deleted)
            return
        self.stdout.write(f"{deleted.deployment_id}  {self.style.SUCCESS('deleted')}")
        if deleted.services:
            self.stderr.write(f"Nobody serves {', '.join(deleted.services)} any more.")
        if deleted.invocations:
            self.stderr.write(f"{deleted.invocations} invocations wait until their service is registered again.")


async def delete(id: str, *, force: bool) -> Deleted:
    act = Act(shell_user(), "deployment.delete", id, {"force": force})
    with closing(await Link.connect(settings().database_url)) as link:
        return await delete_deployment(link, id, force=force, act=act)


def _row(known: Known) -> list[str]:
    if known.reached is not None:
        loaded = "driven" if known.is_loaded else "none alive"
    else:
        loaded = "loaded" if known.is_loaded else "not loaded"
    return [known.id, known.location, moment(known.created_at), loaded, " ".join(sorted(known.serves)) or "-"]
