"""`manage.py replay`: would this code go on with what is under way?"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from django.core.management.base import CommandError, CommandParser

from perdure.protocol.manifest import Manifest
from runtime.conf import settings
from runtime.discovery import load_endpoint
from runtime.engine.remote import RemoteHost
from runtime.management.commands._output import OurCommand, run
from runtime.outbound import Guard, Peer
from runtime.outbound.identity import Identity
from runtime.registering import Wanted, find
from runtime.replaying import Candidate, Module, Replayed, Service, replay_all
from runtime.store.link import Link


class Command(OurCommand):
    help = (
        "Replay what is under way with the code at MODULE:ATTRIBUTE or behind a URL, and list what that would not go "
        "on with: which invocation, and at which command they part. Nothing is switched. Of code in a module no step "
        "(ctx.run) is carried out; what is outside of steps is executed, as in every replay. A service behind a URL "
        "is told each journal up to its last command; where it then asks for a step at once, it may carry that out. "
        "Exits with 3 when something does not fit."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "location", metavar="ENDPOINT", help="as in http://greeter:9080, or examples.communication:app"
        )
        parser.add_argument("--service", action="append", help="only this one; may be repeated")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        found = run(replayed(options["location"], options["service"] or []))
        if options["json"]:
            self.json(found)
        elif found.misfits:
            self.table(
                ["invocation", "handler", "command", "why"],
                [
                    [one.invocation_id, one.handler, "" if one.command is None else str(one.command), _line(one.reason)]
                    for one in found.misfits
                ],
            )
        count = found.invocations
        if found.left_out:
            self.stderr.write(f"{found.left_out} stand in the middle of a step, and were left out.")
        if found.misfits:
            raise CommandError(f"{len(found.misfits)} of {count} under way would not go on with it.", returncode=3)
        self.stderr.write(self.style.SUCCESS(f"All {count} under way would go on with it."))


async def replayed(location: str, services: list[str]) -> Replayed:
    if "://" not in location:
        endpoint = load_endpoint(location)
        return await _replayed(Module(endpoint), endpoint.manifest(), services)
    now = settings()
    found = await find(location, Wanted(), now)
    assert found.reached is not None
    manifest = Manifest.from_json(found.manifest)
    peer = Peer(location, http=found.reached.http_version, guard=Guard.of(now), identity=Identity.of(now))
    try:
        host = RemoteHost(peer, version=found.reached.protocol_version, is_streaming=False)
        handlers = {(service.name, handler.name) for service in manifest.services for handler in service.handlers}
        return await _replayed(Service(host, handlers), manifest, services)
    finally:
        await peer.close()


async def _replayed(candidate: Candidate, manifest: Manifest, services: list[str]) -> Replayed:
    with closing(await Link.connect(settings().database_url)) as link:
        return await replay_all(candidate, services or [service.name for service in manifest.services], link)


def _line(reason: str) -> str:
    return reason.partition("\n")[0]
