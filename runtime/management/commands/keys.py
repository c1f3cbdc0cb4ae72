"""`manage.py keys`: with which keys callers may call a service."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandParser

from runtime.conf import settings
from runtime.core.audit import Act
from runtime.management.commands._output import OurCommand, in_words, moment, run, shell_user
from runtime.reading.services import keys
from runtime.store.ingress_keys import NewKey, create_key, revoke_key
from runtime.store.link import Link


class Command(OurCommand):
    help = (
        "List the keys with which a service is called at the ingress, make one, or take one back. "
        "A service without keys is open to whoever reaches the ingress."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", metavar="SERVICE")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--create", nargs="?", const="", metavar="NOTE", help="make one; it is shown once")
        what.add_argument("--revoke", metavar="ID", help="take one back")
        parser.add_argument("--open", action="store_true", help="also the last one, so that the service is open")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        service: str = options["service"]
        if options["create"] is not None:
            self.tell_created(run(create(service, options["create"])), as_json=options["json"])
        elif options["revoke"] is not None:
            left = run(revoke(service, options["revoke"], open=options["open"]))
            self.tell_revoked(service, options["revoke"], left, as_json=options["json"])
        else:
            self.list(service, as_json=options["json"])

    def list(self, service: str, *, as_json: bool) -> None:
        with in_words():
            found = async_to_sync(keys)(service)
        rows = [(key.id, moment(key.created_at), key.created_by, key.note) for key in found]
        if as_json:
            self.json([dict(zip(("id", "created", "by", "note"), row, strict=True)) for row in rows])
        elif not rows:
            self.stderr.write(f"{service} has no keys: it is open to whoever reaches the ingress.")
        else:
            self.table(["KEY", "CREATED", "BY", "NOTE"], rows)

    def tell_created(self, made: NewKey, *, as_json: bool) -> None:
        if as_json:
            self.json(made)
            return
        self.stdout.write(made.key)
        self.stderr.write("Shown now, and never again. Callers send it as `authorization: Bearer …`.")

    def tell_revoked(self, service: str, id: str, left: int, *, as_json: bool) -> None:
        if as_json:
            self.json({"id": id, "left": left})
        else:
            self.stdout.write(f"{id}  {self.style.SUCCESS('revoked')}")
            self.stderr.write(f"{service} has {left} left." if left else f"{service} is open now.")


async def create(service: str, note: str) -> NewKey:
    act = Act(shell_user(), "key.create", service, {"note": note})
    with closing(await Link.connect(settings().database_url)) as link:
        return await create_key(link, service, note, act)


async def revoke(service: str, id: str, *, open: bool) -> int:
    act = Act(shell_user(), "key.revoke", service, {"key": id, "open": open})
    with closing(await Link.connect(settings().database_url)) as link:
        return await revoke_key(link, service, id, act, open=open)
