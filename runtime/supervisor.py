"""The supervisor: starts processes in order, keeps them running, and stops them in the opposite order.

Stages are started one after another, what stands in one stage at the same time: a `Step` must end well, a `Process`
must answer, before the next stage begins. From then on what dies is started again, after a pause that grows while it
keeps dying early.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from runtime.errors import RuntimeFault
from runtime.servers.process import Process, Step

Stage = Sequence[Process | Step]
Tell = Callable[[str, str], None]  # takes the name of who says it, and a line

FIRST_PAUSE = 0.5  # seconds before a dead process is started again; doubles with every early death
LONGEST_PAUSE = 30.0
GROWN_UP = 30.0  # seconds of life after which a death counts as the first again
TRIES = 4  # of a process that has never answered
LAST_WORDS = 12  # lines shown of the log of what did not come up


class StartFailed(RuntimeFault):
    """Something did not come up, so everything was stopped again."""

    code = "start_failed"

    def __init__(self, message: str, last_words: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.hint = "\n".join(last_words)


class Supervisor:
    """Runs stages until told to stop, by `stop()`, SIGTERM, SIGHUP or Ctrl-C; told a second time, it kills."""

    def __init__(self, stages: Sequence[Stage], tell: Tell) -> None:
        self._stages = stages
        self._tell = tell
        self._keepers: list[list[Keeper]] = []  # by stage, for those that were begun
        self._stopping = asyncio.Event()
        self._killing = asyncio.Event()

    def stop(self) -> None:
        (self._killing if self._stopping.is_set() else self._stopping).set()

    async def run(self, when_up: Callable[[], Awaitable[None]]) -> None:
        """Start everything, call `when_up`, and return when everything was stopped; raises StartFailed."""
        with self._hearing_signals():
            life = asyncio.create_task(self._live(when_up))
            told = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait({life, told}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._stopping.set()
                life.cancel()
                told.cancel()
                (end, _) = await asyncio.gather(life, told, return_exceptions=True)
                for keepers in reversed(self._keepers):
                    await asyncio.gather(*(keeper.stop(self._killing) for keeper in keepers))
            if isinstance(end, Exception):
                raise end

    async def _live(self, when_up: Callable[[], Awaitable[None]]) -> None:
        for stage in self._stages:
            keepers = [Keeper(process, self._tell) for process in stage if isinstance(process, Process)]
            self._keepers.append(keepers)
            try:
                async with asyncio.TaskGroup() as group:
                    for step in stage:
                        if isinstance(step, Step):
                            group.create_task(take(step, self._tell, self._killing))
                    for keeper in keepers:
                        group.create_task(keeper.start())
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from None
        await when_up()
        await asyncio.gather(*(keeper.kept for keepers in self._keepers for keeper in keepers if keeper.kept))

    @contextlib.contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in heard:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)


async def take(step: Step, tell: Tell, killing: asyncio.Event) -> None:
    """Run a step to its end; raises StartFailed when that is not a good one."""
    began = time.monotonic()
    child = await Child.spawn(Process(step.name, step.command, _nothing_to_ask, step.environment), tell)
    try:
        code = await asyncio.shield(child.ended)
    finally:
        await child.stop(killing)
    if code != 0:
        raise StartFailed(f"{step.name} {manner(code)}.", child.last_words())
    tell(step.name, f"done in {time.monotonic() - began:.1f} s")


class Keeper:
    """Keeps one process running."""

    def __init__(self, process: Process, tell: Tell) -> None:
        self.kept: asyncio.Task[None] | None = None
        self._process = process
        self._tell = tell
        self._child: Child | None = None
        self._answered = False

    async def start(self) -> None:
        """Start it and return when it answers; raises StartFailed when it will not."""
        began = time.monotonic()
        self.kept = asyncio.create_task(self._keep())
        answer = asyncio.create_task(self._answer())
        try:
            await asyncio.wait(
                {self.kept, answer}, timeout=self._process.start_within, return_when=asyncio.FIRST_COMPLETED
            )
            if self.kept.done():
                self.kept.result()
            if not answer.done():
                words = self._child.last_words() if self._child else []
                raise StartFailed(
                    f"{self._process.name} does not answer after {self._process.start_within:g} s.", words
                )
            answer.result()
        finally:
            answer.cancel()
        self._answered = True
        self._tell(self._process.name, f"answers after {time.monotonic() - began:.1f} s")

    async def stop(self, killing: asyncio.Event) -> None:
        """Ask it to stop, and make it, when its time is over or `killing` is set."""
        if self.kept is None:
            return
        self.kept.cancel()
        await asyncio.gather(self.kept, return_exceptions=True)
        if self._child is not None:
            await self._child.stop(killing)

    async def _keep(self) -> None:
        early_deaths = 0
        while True:
            born = time.monotonic()
            self._child = await Child.spawn(self._process, self._tell)
            code = await asyncio.shield(self._child.ended)
            early_deaths = early_deaths + 1 if time.monotonic() - born < GROWN_UP else 1
            if not self._answered and early_deaths == TRIES:
                raise StartFailed(f"{self._process.name} {manner(code)}, {TRIES} times.", self._child.last_words())
            pause = min(FIRST_PAUSE * 2 ** (early_deaths - 1), LONGEST_PAUSE)
            log = f" (its log: {self._process.log})" if self._process.log else ""
            self._tell(self._process.name, f"{manner(code)}; starting it again in {pause:g} s{log}")
            await asyncio.sleep(pause)

    async def _answer(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                # Asked while a child of ours lives: on its port somebody else may answer.
                if self._child and not self._child.ended.done() and await self._process.answers():
                    return
            await asyncio.sleep(0.1)


class Child:
    """One run of a process: its end, its lines, and the way to stop it together with what it started."""

    def __init__(self, process: Process, running: asyncio.subprocess.Process, output: int | None, tell: Tell) -> None:
        self._process = process
        self._running = running
        self._tell = tell
        self.ended: asyncio.Task[int] = asyncio.create_task(self._end(output))

    @classmethod
    async def spawn(cls, process: Process, tell: Tell) -> Child:
        """Start it; raises StartFailed when there is no such program."""
        with contextlib.ExitStack() as undo:
            # A pipe of our own: asyncio's would hide the end of a child while a child of its own holds it open.
            if process.log is not None:
                read, write = None, os.open(process.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            else:
                read, write = os.pipe()
                undo.callback(os.close, read)
            try:
                running = await asyncio.create_subprocess_exec(
                    *process.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=write,
                    stderr=asyncio.subprocess.STDOUT,
                    **process.options(),
                )
            except OSError as error:
                raise StartFailed(f"{process.name} cannot be started: {error}.") from error
            finally:
                os.close(write)
            undo.pop_all()
        return cls(process, running, read, tell)

    def last_words(self) -> list[str]:
        """Of its log, which nobody has read yet; what it said to us was told when it said it."""
        if self._process.log is None:
            return []
        with contextlib.suppress(OSError):
            return self._process.log.read_text(errors="replace").splitlines()[-LAST_WORDS:]
        return []

    async def stop(self, killing: asyncio.Event) -> None:
        if not self.ended.done():
            self._running.send_signal(self._process.stop_signal)
            impatience = asyncio.create_task(killing.wait())
            await asyncio.wait(
                {self.ended, impatience}, timeout=self._process.stop_within, return_when=asyncio.FIRST_COMPLETED
            )
            if not self.ended.done() and not impatience.done():
                self._tell(self._process.name, f"has not stopped within {self._process.stop_within:g} s: killed")
            impatience.cancel()
            self._sweep()
        await self.ended

    async def _end(self, output: int | None) -> int:
        speech = asyncio.create_task(self._speak(output))
        code = await self._running.wait()
        self._sweep()
        # What it started and let go of may hold its output open; what it said itself has been read by then.
        await asyncio.wait({speech}, timeout=1.0)
        speech.cancel()
        await asyncio.gather(speech, return_exceptions=True)
        return code

    def _sweep(self) -> None:
        """Kill what is left of its group; the group is its own, so nobody else is in it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._running.pid, signal.SIGKILL)

    async def _speak(self, output: int | None) -> None:
        if output is None:
            return
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", buffering=0)
        )
        with contextlib.closing(transport):
            begun = b""
            while chunk := await reader.read(65536):
                *lines, begun = (begun + chunk).split(b"\n")
                for line in lines:
                    self._say(line)
            if begun:
                self._say(begun)

    def _say(self, line: bytes) -> None:
        if text := line.decode(errors="replace").rstrip():
            self._tell(self._process.name, text)


def manner(code: int) -> str:
    """How it ended, in words.

    >>> manner(-9), manner(1)
    ('was ended by SIGKILL', 'ended with exit code 1')
    """
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


async def _nothing_to_ask() -> bool:
    return False
