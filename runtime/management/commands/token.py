"""`manage.py token`: the tokens that let programs in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from runtime.accounts import tokens
from runtime.core.access import Role
from runtime.management.commands._output import OurCommand, in_words, moment, shell_user
from runtime.models import Token

ROLES = {role.name.lower(): role for role in Role}


class Command(OurCommand):
    help = "Make, list and revoke the tokens with which programs use the operators' API."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        create = verbs.add_parser("create", help="make one; its secret is printed once and kept nowhere")
        create.add_argument("name", metavar="NAME", help="what uses it")
        create.add_argument("--role", choices=ROLES, default="viewer", help="what it may do (default: viewer)")
        create.add_argument("--service", action="append", metavar="NAME", help="for this service only; repeatable")
        create.add_argument("--payloads", action="store_true", default=None, help="sees payloads, as a viewer too")
        create.add_argument("--days", type=float, metavar="N", help="until it expires (default: never)")
        lister = verbs.add_parser("list", help="those that let somebody in")
        revoke = verbs.add_parser("revoke", help="let nobody in with it any more, within seconds")
        revoke.add_argument("id", type=int, metavar="ID", help="its number in the list")
        for verb in (create, lister, revoke):
            super().add_arguments(verb)

    def handle(self, *args: Any, **options: Any) -> None:
        with in_words():
            match options["verb"]:
                case "create":
                    self._create(options)
                case "list":
                    self._list(options)
                case _:
                    if not tokens.revoke_token(shell_user(), options["id"]):
                        raise CommandError(f"There is no token {options['id']}. `token list` shows those there are.")
                    self.stdout.write(f"token {options['id']} lets nobody in any more")

    def _create(self, options: dict[str, Any]) -> None:
        days = options["days"]
        if days is not None and not 0 < days <= 36_500:
            raise CommandError("--days takes a number above 0, and up to 36500.")
        token, secret = tokens.make_token(
            shell_user(),
            options["name"],
            ROLES[options["role"]],
            services=options["service"],
            sees_payloads=options["payloads"],
            lifetime=None if days is None else timedelta(days=days),
        )
        if (note := tokens.unregistered(token)) is not None:
            self.stderr.write(note)
        if options["json"]:
            self.json({"id": token.pk, "name": token.name, "secret": secret})
        else:
            self.stdout.write(secret)
            self.stderr.write(f"Token {token.pk} of {token.name}, {options['role']}. It is shown this once.")

    def _list(self, options: dict[str, Any]) -> None:
        rows = tokens.tokens()
        if options["json"]:
            self.json([_told(row) for row in rows])
        elif rows:
            headings = ("id", "name", "role", "services", "created", "expires", "last used")
            self.table(headings, [_row(row) for row in rows])
        else:
            self.stdout.write("No token lets anybody in. `token create NAME --role viewer` makes one.")


def _row(row: Token) -> list[str]:
    times = [moment(time) if time else "never" for time in (row.expires_at, row.last_used_at)]
    services = "all" if row.services is None else ", ".join(row.services)
    return [str(row.pk), row.name, Role(row.role).name.lower(), services, moment(row.created_at), *times]


def _told(row: Token) -> dict[str, Any]:
    return {
        "id": row.pk,
        "name": row.name,
        "role": Role(row.role).name.lower(),
        "services": row.services,
        "sees_payloads": row.sees_payloads,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "last_used_at": row.last_used_at,
    }
