"""What `cancel`, `kill`, `pause` and the like have in common: invocations are told the same, by their ids or by filter.

Those that are named are told one by one, and each is reported on. Those that a filter means are told as `POST /bulk`
does it: written down at once, so that a Ctrl-C leaves nothing half done.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Mapping, Sequence
from typing import Any, ClassVar
from uuid import UUID

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser
from msgspec.structs import asdict

from perdure.protocol.ids import format_id, parse_id
from runtime import bulk, hall, steering
from runtime.core.filters import InvocationFilter
from runtime.management.commands._filters import add_filters, read_filter
from runtime.management.commands._output import OurCommand, in_words, run, shell_user
from runtime.operations import Operations, UnknownInvocation
from runtime.reading import bulk as reading
from runtime.steering import Verb

UNKNOWN = "unknown"
REPORTS = {UNKNOWN: "is not known, or not kept any more", "already_ended": "had ended already"}


class VerbCommand(OurCommand):
    """Tell invocations something; those that cannot be told do not keep the others from hearing it."""

    said: ClassVar[Mapping[str, str]]
    """What is reported, by what came of it; of an unknown one this class speaks."""
    told: ClassVar[Container[str]]
    """Which of these are no failure."""
    takes_code: ClassVar[bool] = False
    """Whether it is said on which code they are to go on."""

    @abstractmethod
    def verb(self, options: Mapping[str, Any]) -> Verb:
        """What they are told."""

    async def tell_one(self, here: Operations, id: bytes, options: Mapping[str, Any]) -> str:
        """What came of it. Raises UnknownInvocation."""
        deployment = self.code(options) or steering.KEEP
        return await steering.tell(here, self.verb(options), id, shell_user(), deployment)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "ids", nargs="*", metavar="ID", help="of an invocation, as in inv_1…; without one, the filters"
        )
        add_filters(parser, without=["deployment"] if self.takes_code else [])
        if self.takes_code:
            parser.add_argument(
                "--deployment",
                metavar="ID",
                help="the code to go on with: `keep` (what it had), `latest`, or a deployment's id",
            )
        parser.add_argument("--all", action="store_true", help="all to whom it can be done, where no filter is given")
        parser.add_argument("--dry-run", action="store_true", help="only count those that the filters mean")
        parser.add_argument("--yes", action="store_true", help="do not ask before a filter touches more than one")
        parser.add_argument(
            "--at-most",
            type=int,
            default=bulk.AT_MOST,
            metavar="N",
            help=f"touch none if there are more ({bulk.AT_MOST})",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["ids"]:
            self.by_filter(options)
            return
        texts: Sequence[str] = options["ids"]
        with in_words():
            ids = [parse_id(text) for text in texts]
        answers = dict(zip(texts, run(self.tell(ids, options)), strict=True))
        if options["json"]:
            self.json(answers)
        else:
            reports = {**REPORTS, **self.said}
            for text, answer in answers.items():
                self.stdout.write(f"{text}  {reports[answer]}")
        failed = [text for text, answer in answers.items() if answer not in self.told]
        if failed:
            raise CommandError(f"{len(failed)} of {len(texts)} could not be told.")

    async def tell(self, ids: Sequence[bytes], options: Mapping[str, Any]) -> list[str]:
        async with hall.visit() as operations:
            return [await self.answer(operations, id, options) for id in ids]

    async def answer(self, operations: Operations, id: bytes, options: Mapping[str, Any]) -> str:
        try:
            return await self.tell_one(operations, id, options)
        except UnknownInvocation:
            return UNKNOWN

    # By filter

    def wanted(self, options: Mapping[str, Any]) -> InvocationFilter:
        """Whom the filters mean. Raises CommandError when nothing is said."""
        wanted = read_filter({**options, "deployment": None} if self.takes_code else options)
        if wanted == InvocationFilter() and not options["all"]:
            raise CommandError("Which ones? Name IDs or filters; --all means all there are.", returncode=2)
        return wanted

    def by_filter(self, options: Mapping[str, Any]) -> None:
        wanted, verb = self.wanted(options), self.verb(options)
        at_most = bulk.MOST if options["dry_run"] else min(max(options["at_most"], 1), bulk.MOST)
        with in_words():
            ids = async_to_sync(bulk.meant)(verb, wanted, at_most)
        if options["dry_run"]:
            if options["json"]:
                self.json({"matched": len(ids)})
            else:
                self.stdout.write(f"{len(ids)} invocations are meant. Nothing was done.")
            return
        if len(ids) > 1 and not options["yes"]:
            self.confirm(f"{verb} {len(ids)} invocations?")
        id = run(self.carry_out(verb, ids, wanted, self.code(options)))
        with in_words():
            found = async_to_sync(reading.find)(UUID(bytes=id))
        assert found is not None
        if options["json"]:
            self.json(found)
        else:
            words = ", ".join(f"{word} {times}" for word, times in sorted(found.came.items()))
            self.stdout.write(f"{verb}: {found.told} of {found.total} invocations{f' ({words})' if words else ''}.")

    async def carry_out(
        self, verb: Verb, ids: Sequence[bytes], wanted: InvocationFilter, deployment: str | None
    ) -> bytes:
        done = 0

        def told(number: int) -> None:
            nonlocal done
            done += number
            self.progress(done, len(ids))

        async with hall.visit() as here:
            said = as_said(wanted)
            id = await bulk.begin(here, verb, ids, shell_user(), said, deployment, wanted.bounds)
            await bulk.carry_out(here, id, told)
        return id

    def code(self, options: Mapping[str, Any]) -> str | None:
        """The deployment on which they are to go on, if somebody has said so."""
        return options["deployment"] if self.takes_code else None


def as_said(wanted: InvocationFilter) -> dict[str, Any]:
    """The filter in the words of the API."""
    words = {name: value for name, value in asdict(wanted).items() if value not in (None, ())}
    if "caller" in words:
        words["caller"] = format_id(words["caller"])
    return {{"statuses": "status", "outcomes": "outcome"}.get(name, name): value for name, value in words.items()}
