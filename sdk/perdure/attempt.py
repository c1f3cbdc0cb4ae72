"""One attempt: a handler's coroutine between its journal and the runtime. It owns the tasks; the machine decides."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Generator, Sequence
from datetime import timedelta
from typing import Any

from perdure.closures import Closure, failure, in_words, stacktrace
from perdure.context import Context
from perdure.errors import AttemptEnded, ProtocolError, TerminalError
from perdure.machine import Machine
from perdure.nodes import Node, until
from perdure.protocol import messages as m
from perdure.protocol.limits import DEFAULTS, Limits

log = logging.getLogger(__name__)

JOURNAL_MISMATCH = 570

SWALLOWS = (
    "The handler goes on although its attempt has ended, for it catches what should end it: write `except Exception` "
    "instead of `except:` or `except BaseException`, or `raise` in there."
)

Emit = Callable[[m.Message], None]
Invoke = Callable[[Any, bytes], Coroutine[Any, Any, bytes]]
"""A handler, from its context and its input to its output."""

if sys.version_info >= (3, 12):

    def start_task(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        # Eagerly: a handler that never waits is done before this returns, without a turn of the loop.
        return asyncio.Task(coroutine, loop=loop, eager_start=True)

else:

    def start_task(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        return loop.create_task(coroutine)


class Attempt:
    """Lives on the event loop's thread. It emits messages in the order of the journal, at last exactly one of End,
    Suspension and Error, unless it is aborted. `emit` may call `notify` on it, and nothing else.
    """

    __slots__ = (
        "_awaited",
        "_closures",
        "_context",
        "_emit",
        "_ended",
        "_input",
        "_invoke",
        "_is_abandoned",
        "_loop",
        "_machine",
        "_on_rest",
        "_open",
        "_start",
        "_task",
        "_waiter",
        "executing",
    )

    def __init__(
        self,
        invoke: Invoke,
        context: type[Context],
        key: str,
        start: m.Start,
        entries: Sequence[m.Entry],
        emit: Emit,
        clock: Callable[[], float],
        *,
        gated: bool,
        limits: Limits = DEFAULTS,
        on_rest: Callable[[], None] | None = None,
    ) -> None:
        if not entries or not isinstance(entries[0], m.Input):
            raise ProtocolError("A journal begins with its input.")
        self._machine = Machine(start, entries, emit, self._pause, limits)
        self._context = context(self._machine, start, entries[0], key, clock)
        self._input = entries[0].value.content
        self._invoke = invoke
        self._start = start
        self._emit = emit
        self._open = not gated
        self._on_rest = on_rest
        self._ended = False
        self._is_abandoned = False
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._closures: set[asyncio.Task[None]] = set()
        self._awaited: Node | None = None  # what the handler waits for, while it does
        self._waiter: asyncio.Future[None] | None = None  # what wakes it
        self.executing = 0
        """Closures under way."""

    # The runtime's side

    def begin(self) -> None:
        """Run the handler; on Python 3.12 and later, as far as it goes without waiting before this returns."""
        if self._machine.journal.finished:
            self._end(m.End())
        else:
            self._task = start_task(self._main(), self._loop)

    def notify(self, notification: m.Notification) -> None:
        """Append to the journal's notifications; each once, in the journal's order."""
        self._machine.inbox.append(notification)
        if self._awaited is not None and self._machine.can_go_on(self._awaited):
            self._wake()

    def open(self) -> None:
        """Let closures start, for an attempt that was made `gated`."""
        self._open = True
        if self._awaited is not None:
            self._start_closures()

    def suspend(self) -> bool:
        """End it with a Suspension if it does nothing but wait."""
        wait = self.waiting
        if wait is None:
            return False
        self._end(m.Suspension(wait))
        self._drop_handler()
        return True

    def abort(self) -> None:
        """Drop it at once. Its `finally` blocks still run, but nothing that they ask for happens."""
        self._close()
        self._drop_handler()

    @property
    def waiting(self) -> m.Wait | None:
        """What it waits for; None while it computes, executes a closure, or has closures that may not start yet."""
        if self._awaited is None or self._ended or self.executing or self._context.unstarted:
            return None
        return until(self._awaited)

    @property
    def is_at_rest(self) -> bool:
        """Whether it goes no further by itself: it has ended, or waits, be it for a step that may not start yet."""
        return self._ended or self._awaited is not None

    @property
    def has_waited(self) -> bool:
        """Whether its handler has come to an await at which it would have heard of a cancellation."""
        return self._machine.has_waited

    # The handler's side

    async def _main(self) -> None:
        self._context.task = asyncio.current_task()
        try:
            result: m.Value | m.Failure
            try:
                result = self._machine.result(await self._invoke(self._context, self._input), "the handler")
                self._complain_of_unstarted()
            except TerminalError as error:
                result = failure(error)
            self._machine.output(result)
        except BaseException as error:  # exits, too: out of a task they would end the loop, and everybody else with it
            if not self._ended:
                self._fail(error)
        else:
            self._end(m.End())

    def _complain_of_unstarted(self) -> None:
        """What the handler gave to ctx.run and then waited for nothing: it is dropped, and hardly meant to be."""
        for closure in self._context.unstarted:
            if not closure.leaf.settled:
                log.warning(
                    '%s: ctx.run("%s") was never awaited, so it is not executed', self._start.debug_id, closure.name
                )

    def _fail(self, error: BaseException) -> None:
        journal = self._machine.journal
        if not isinstance(error, AttemptEnded) or journal.mismatch is None:
            self._end(m.Error(500, in_words(error), stacktrace(error)))
            return
        words = f"{journal.mismatch} {SWALLOWS}" if self._is_abandoned else str(journal.mismatch)
        recorded = journal.contradicted  # the handler and its journal differ, which is why it was unwound
        self._end(
            m.Error(
                JOURNAL_MISMATCH,
                words,
                related_command_index=journal.index,
                related_command_name=getattr(recorded, "name", ""),
                related_command_type=recorded.CODE,
            )
        )

    def _pause(self, target: Node) -> Generator[Any, None, None]:
        """Suspend the handler's coroutine until `target` may be settled, or the invocation is cancelled."""
        journal = self._machine.journal
        if self._open and self._context.unstarted and not journal.over:
            self._start_closures()
        if journal.over:
            yield from self._unwind()
        if self._machine.can_go_on(target):
            return
        self._awaited = target
        self._waiter = self._loop.create_future()
        if self._on_rest is not None:
            self._loop.call_soon(self._on_rest)
        try:
            yield from self._waiter
        finally:
            self._awaited = None

    def _unwind(self) -> Generator[Any, None, None]:
        """Raise AttemptEnded in the handler, or leave one that swallows it for ever where it stands."""
        self._machine.journal.unwind()
        if not self._is_abandoned:
            self._abandon()
        while True:
            yield from self._loop.create_future()

    def _abandon(self) -> None:
        """Nothing in Python ends a coroutine that catches everything. It is woken no more, and then forgotten."""
        self._is_abandoned = True
        log.warning("%s: %s", self._start.debug_id, SWALLOWS)
        if not self._ended:
            self._fail(AttemptEnded())
        task: Any = self._context.task
        task._log_destroy_pending = False  # noqa: SLF001 -- as asyncio.gather does, for what it leaves alone
        # Whoever closes the loop cancels all tasks and waits for them. Later: one that starts eagerly is not there yet.
        self._loop.call_soon(asyncio._unregister_task, task)  # noqa: SLF001 -- documented

    def _wake(self) -> None:
        self._awaited = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Closures

    def _start_closures(self) -> None:
        unstarted = [closure for closure in self._context.unstarted if not closure.leaf.settled]
        self._context.unstarted.clear()
        for closure in unstarted:
            self.executing += 1
            task = start_task(self._execute(closure), self._loop)
            if not task.done():
                self._closures.add(task)
                task.add_done_callback(self._closures.discard)

    async def _execute(self, closure: Closure) -> None:
        result: m.Value | m.Failure | m.Error
        try:
            result = await closure.execute(self._machine.result)
        except BaseException as error:  # not to be waited for forever, whatever it is
            result = closure.judge(error, *self._earlier(closure))
        self.executing -= 1
        if self._ended:
            return
        if isinstance(result, m.Error):
            self._end(result)
            self._drop_handler()
        else:
            self._emit(m.ProposeRunCompletion(closure.leaf.id, result))

    def _earlier(self, closure: Closure) -> tuple[int, timedelta]:
        """How often and how long a closure was tried in earlier attempts."""
        if not self._machine.journal.is_recorded(closure.index):
            return 0, timedelta(0)
        start = self._start
        elapsed = timedelta(milliseconds=start.duration_since_last_stored_entry)
        return start.retry_count_since_last_stored_entry, elapsed

    # The end

    def _end(self, message: m.End | m.Suspension | m.Error) -> None:
        self._close()
        self._emit(message)

    def _close(self) -> None:
        self._ended = self._machine.journal.over = True
        self._context.unstarted.clear()
        for task in self._closures:
            task.cancel()

    def _drop_handler(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
