"""What `cancel` and `kill` have in common: they tell several invocations the same, and report on each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from django.core.management.base import CommandError, CommandParser

from perdure.protocol.ids import parse_id
from runtime import hall
from runtime.core.access import Actor
from runtime.management.commands._output import OurCommand, in_words, run, shell_user
from runtime.operations import Operations, UnknownInvocation
from runtime.store.verbs import Verdict


class VerbCommand(OurCommand):
    """Tell invocations something; those that cannot be told do not keep the others from hearing it."""

    verb: ClassVar[Callable[[Operations, bytes, Actor], Awaitable[Verdict]]]
    done: ClassVar[str]
    asked: ClassVar[str]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("ids", nargs="+", metavar="ID", help="of an invocation, as in inv_1…")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        texts: Sequence[str] = options["ids"]
        with in_words():
            ids = [parse_id(text) for text in texts]
        answers = dict(zip(texts, run(self.tell(ids)), strict=True))
        if options["json"]:
            self.json(answers)
        else:
            for text, answer in answers.items():
                self.stdout.write(f"{text}  {self.words(answer)}")
        failed = [text for text, answer in answers.items() if answer in (Verdict.UNKNOWN, Verdict.ALREADY_ENDED)]
        if failed:
            raise CommandError(f"{len(failed)} of {len(texts)} could not be told.")

    def words(self, verdict: Verdict) -> str:
        match verdict:
            case Verdict.DONE:
                return self.done
            case Verdict.ASKED:
                return self.asked
            case Verdict.ALREADY_ENDED:
                return "had ended already"
            case Verdict.UNKNOWN:
                return "is not known, or not kept any more"

    async def tell(self, ids: Sequence[bytes]) -> list[Verdict]:
        async with hall.visit() as operations:
            return [await self.answer(operations, id) for id in ids]

    async def answer(self, operations: Operations, id: bytes) -> Verdict:
        try:
            return await type(self).verb(operations, id, shell_user())
        except UnknownInvocation:
            return Verdict.UNKNOWN
