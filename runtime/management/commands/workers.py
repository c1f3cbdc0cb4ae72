"""`manage.py workers`: the engines and their queues; lets them take nothing new, and take work again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from runtime import hall, steering
from runtime.management.commands._output import OurCommand, in_words, moment, run, shell_user
from runtime.reading import workers
from runtime.reading.workers import Celery, Engine, Queue, Standing
from runtime.store.drained import Drain

LIST, DRAIN, RESUME = "list", "drain", "resume"
ENGINE_HEADINGS = (
    *("ENGINE", "HOST", "PID", "STATUS", "IN FLIGHT", "KEYS"),
    *("CLAIMED/S", "FINISHED/S", "LAG", "SINCE", "QUEUES"),
)
LOOK = 0.5  # seconds between two looks at what is left


class Command(OurCommand):
    help = (
        "List the engines, the queues they serve and Celery's workers. `drain` lets an engine take nothing new: what "
        "waits there goes on elsewhere, what is executing is finished. With --queue it is a queue from which nothing "
        "new begins. `resume` undoes it. Exits with 1 when there is no such engine or queue."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=[LIST, DRAIN, RESUME], default=LIST)
        parser.add_argument("engines", nargs="*", metavar="ENGINE", help="an id, or its beginning")
        parser.add_argument("--queue", action="append", default=[], dest="queues", metavar="NAME")
        parser.add_argument("--wait", action="store_true", help="after `drain`: return when nothing is left there")
        super().add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        action: str = options["action"]
        wanted: Sequence[str] = options["engines"]
        queues: Sequence[str] = options["queues"]
        if action == LIST:
            with in_words():
                self.show(async_to_sync(look)(), as_json=options["json"])
        elif not wanted and not queues:
            words = f"Which one? `workers {action} ENGINE`, or `workers {action} --queue NAME`."
            raise CommandError(words, returncode=2)
        else:
            with in_words():
                ids = async_to_sync(find)(wanted)
            answers = run(self.tell(action, ids, queues, wait=options["wait"]))
            if options["json"]:
                self.json(answers)
            if missed := [name for name, came in answers.items() if came is Drain.UNKNOWN]:
                raise CommandError(f"There is no engine or queue {', '.join(missed)}. `workers` lists them.")

    def show(self, found: tuple[list[Engine], list[Queue], Celery], *, as_json: bool) -> None:
        engines, queues, celery = found
        if as_json:
            self.json({"engines": engines, "queues": queues, "celery": celery})
            return
        if engines:
            self.table(
                ENGINE_HEADINGS,
                [_engine_row(engine) for engine in engines],
            )
        else:
            self.stderr.write("No engine is alive. Start them with ./dev up, or a Celery worker.")
        if queues:
            self.stdout.write("")
            self.table(["QUEUE", "STATUS", "ENGINES", "READY", "OLDEST SINCE"], [_queue_row(queue) for queue in queues])
        if celery.workers:
            self.stdout.write("")
            self.table(
                ["CELERY WORKER", "PID", "PROCESSES", "UP FOR"],
                [[one.name, str(one.pid), str(one.processes), f"{one.uptime_seconds} s"] for one in celery.workers],
            )
        if celery.trouble:
            self.stderr.write(f"Celery's workers are not known: {celery.trouble}")

    async def tell(self, action: str, ids: Sequence[UUID], queues: Sequence[str], *, wait: bool) -> dict[str, Drain]:
        answers: dict[str, Drain] = {}
        by = shell_user()
        set_engine = steering.drain_engine if action == DRAIN else steering.resume_engine
        set_queue = steering.drain_queue if action == DRAIN else steering.resume_queue
        async with hall.visit() as here:
            for id in ids:
                answers[str(id)] = await set_engine(here, id, by)
            for queue in queues:
                answers[queue] = await set_queue(here, queue, by)
            for name, came in answers.items():
                if came is not Drain.UNKNOWN:
                    self.stderr.write(f"{name}  {came}")
        if wait and action == DRAIN:
            for name, came in answers.items():
                if came is Drain.DRAINED:
                    await self.until_nothing_is_left(name, is_queue=name in queues)
        return answers

    async def until_nothing_is_left(self, name: str, *, is_queue: bool) -> None:
        said = ""
        while True:
            found = await (workers.queue(name) if is_queue else workers.engine(UUID(name)))
            now = "gone" if found is None else found.left
            if now != said:
                self.stderr.write(f"{name}  {now}")
                said = now
            if found is None or found.status is not Standing.DRAINING:
                return
            await asyncio.sleep(LOOK)


async def look() -> tuple[list[Engine], list[Queue], Celery]:
    return await workers.engines(), await workers.queues(), await workers.celery()


async def find(wanted: Sequence[str]) -> list[UUID]:
    """The engines whose ids begin so."""
    living = [engine.id for engine in await workers.engines()]
    found = []
    for start in wanted:
        fitting = [id for id in living if str(id).startswith(start.lower())]
        if len(fitting) != 1:
            how_many = "No engine has" if not fitting else "Several engines have"
            raise CommandError(f"{how_many} an id that begins with {start!r}. `workers` lists them.")
        found += fitting
    return found


def _engine_row(engine: Engine) -> list[str]:
    return [
        str(engine.id)[:8],
        engine.host,
        str(engine.pid),
        f"{engine.status}, {engine.left}" if engine.status is Standing.DRAINING else engine.status,
        str(engine.in_flight),
        str(engine.keys),
        f"{engine.claimed_per_second:.0f}",
        f"{engine.finished_per_second:.0f}",
        f"{engine.loop_lag_ms:.0f} ms",
        moment(engine.started_at),
        " ".join(engine.queues),
    ]


def _queue_row(queue: Queue) -> list[str]:
    is_more = queue.ready >= workers.MOST_COUNTED
    return [
        queue.name,
        f"{queue.status}, {queue.left}" if queue.status is Standing.DRAINING else queue.status,
        str(queue.engines),
        f"{queue.ready}{'+' if is_more else ''}",
        moment(queue.oldest_ready_at) if queue.oldest_ready_at else "",
    ]
