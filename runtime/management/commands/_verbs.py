"""What `cancel`, `kill` and `resume` have in common: several invocations are told the same, each is reported on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Mapping, Sequence
from typing import Any, ClassVar

from django.core.management.base import CommandError, CommandParser

from perdure.protocol.ids import parse_id
from runtime import hall, steering
from runtime.management.commands._output import OurCommand, in_words, run, shell_user
from runtime.operations import Operations, UnknownInvocation
from runtime.steering import Verb

UNKNOWN = "unknown"
REPORTS = {UNKNOWN: "is not known, or not kept any more", "already_ended": "had ended already"}


class VerbCommand(OurCommand):
    """Tell invocations something; those that cannot be told do not keep the others from hearing it."""

    said: ClassVar[Mapping[str, str]]
    """What is reported, by what came of it; of an unknown one this class speaks."""
    told: ClassVar[Container[str]]
    """Which of these are no failure."""

    @abstractmethod
    def verb(self, options: Mapping[str, Any]) -> Verb:
        """What they are told."""

    async def tell_one(self, here: Operations, id: bytes, options: Mapping[str, Any]) -> str:
        """What came of it. Raises UnknownInvocation."""
        deployment = options.get("deployment", steering.KEEP)
        return await steering.tell(here, self.verb(options), id, shell_user(), deployment)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="+", metavar="ID", help="of an invocation, as in inv_1…")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
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
