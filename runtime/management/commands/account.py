"""`manage.py account`: the accounts of people, which are Django's."""

from __future__ import annotations

import getpass
import secrets
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from runtime import conf
from runtime.accounts import people, tokens
from runtime.core.access import Role
from runtime.management.commands._output import OurCommand, in_words, moment, shell_user

ROLES = {role.name.lower(): role for role in Role}
FIRST = "admin"


class Command(OurCommand):
    help = "Make, list and change the accounts of people. A password is asked for, or read from standard input."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        create = verbs.add_parser("create", help="make one, with a password that is asked for")
        create.add_argument("--role", choices=ROLES, default="viewer", help="what they may do (default: viewer)")
        create.add_argument("--payloads", action="store_true", help="sees payloads, as a viewer too")
        change = verbs.add_parser("change", help="give one another role")
        change.add_argument("--role", choices=ROLES, help="what they may do from now on")
        change.add_argument("--payloads", choices=("yes", "no"), help="whether a viewer sees payloads")
        others = {
            "password": "give one another password; their sessions end",
            "close": "let one in no more",
            "open": "let one in again",
        }
        named = [create, change, *(verbs.add_parser(verb, help=text) for verb, text in others.items())]
        for verb in named:
            verb.add_argument("name", metavar="NAME")
        lister = verbs.add_parser("list", help="all accounts")
        first = verbs.add_parser("first", help="an admin and a token, kept in the data directory, as `up` makes them")
        for verb in (*named, lister, first):
            super().add_arguments(verb)

    def handle(self, *args: Any, **options: Any) -> None:
        by, name = shell_user(), options.get("name", "")
        with in_words():
            match options["verb"]:
                case "create":
                    role = ROLES[options["role"]]
                    people.make_account(by, name, role, _password(), sees_payloads=options["payloads"])
                    self.stdout.write(f"{name} can sign in, as {options['role']}")
                case "change":
                    payloads = None if options["payloads"] is None else options["payloads"] == "yes"
                    people.change_account(by, name, role=ROLES.get(options["role"]), sees_payloads=payloads)
                    self.stdout.write(f"{name} is changed")
                case "password":
                    people.change_account(by, name, password=_password())
                    self.stdout.write(f"{name} has another password")
                case "close" | "open" as verb:
                    people.change_account(by, name, is_open=verb == "open")
                    self.stdout.write(f"{name} is {'let in again' if verb == 'open' else 'let in no more'}")
                case "list":
                    self._list(options)
                case _:
                    self._first()

    def _list(self, options: dict[str, Any]) -> None:
        found = [(user, role.name.lower() if (role := people.role_of(user)) else "none") for user in people.accounts()]
        if options["json"]:
            self.json(
                [
                    {"name": user.username, "role": role, "open": user.is_active, "last_login": user.last_login}
                    for user, role in found
                ]
            )
        elif found:
            rows = [
                [user.username, role, "open" if user.is_active else "closed",
                 moment(user.last_login) if user.last_login else "never"]
                for user, role in found
            ]  # fmt: skip
            self.table(("name", "role", "state", "last signed in"), rows)
        else:
            self.stdout.write("Nobody has an account. `account create NAME --role admin` makes one.")

    def _first(self) -> None:
        """Done again, it makes another token, and leaves an account that is there as it is."""
        by, data = shell_user(), conf.settings().data
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not people.accounts():
            password = secrets.token_urlsafe(12)
            conf.private(data / conf.CREDENTIALS, f"{FIRST} {password}\n")
            people.make_account(by, FIRST, Role.ADMIN, password)
            self.stdout.write(f"sign in as {FIRST} with {password} (kept in {data / conf.CREDENTIALS})")
        _, secret = tokens.make_token(by, "of the first start", Role.ADMIN)
        conf.private(data / conf.TOKEN, f"{secret}\n")
        self.stdout.write(f"API token {secret} (kept in {data / conf.TOKEN})")


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if password != getpass.getpass("Again: "):
        raise CommandError("The two are not the same.")
    return password
