"""The functions that `ctx.run` is given: how they are called, what they gave, and whether to try again."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from inspect import CO_COROUTINE, isawaitable
from types import CodeType, FunctionType, MethodType
from typing import Any

from perdure.errors import TerminalError, UsageError
from perdure.nodes import Leaf
from perdure.protocol import messages as m
from perdure.retry import Retry
from perdure.serde import Serde, serde_for
from perdure.service import resolve_hint


class Closure:
    """One function to be executed, whose result is to be stored as the completion of a Run."""

    __slots__ = ("_action", "_arguments", "_encode", "_name", "_named", "_retry", "index", "leaf")

    def __init__(
        self,
        name: str,
        action: Callable[..., Any],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
        *,
        leaf: Leaf,
        index: int,
        encode: Callable[[Any], bytes],
        retry: Retry | None,
    ) -> None:
        self._name = name
        self._action = action
        self._arguments = arguments
        self._named = named
        self._encode = encode
        self._retry = retry
        self.index = index
        """The place of its command."""
        self.leaf = leaf

    async def execute(self) -> m.Value | m.Failure:
        """Call it: coroutine functions here, others in a thread. Raises what it raises, except TerminalError."""
        try:
            if is_coroutine_function(self._action):
                result = await self._action(*self._arguments, **self._named)
            else:
                result = await self._in_thread()
        except TerminalError as error:
            return failure(error)
        return m.Value(self._encode(result))

    async def _in_thread(self) -> Any:
        call = partial(copy_context().run, self._action, *self._arguments, **self._named)
        result = await asyncio.get_running_loop().run_in_executor(None, call)
        return await result if isawaitable(result) else result  # lambda: client.get(url)

    def judge(self, error: BaseException, earlier_failures: int, earlier: timedelta) -> m.Failure | m.Error:
        """What its failure means: for the handler, when the policy is used up, else for this attempt."""
        failures = earlier_failures + 1
        retry = self._retry or Retry()
        in_words = f"{type(error).__name__}: {error}"
        exhausted = retry.exhausted(failures, earlier)
        if exhausted and retry.on_max_attempts != "pause":
            return m.Failure(500, f'"{self._name}" failed for good after {failures} attempts. {in_words}')
        delay = retry.delay(failures)
        return m.Error(
            500,
            in_words,
            stacktrace(error),
            related_command_index=self.index,
            related_command_name=self._name,
            related_command_type=m.Run.CODE,
            next_retry_delay=None if delay is None else round(delay.total_seconds() * 1000),
            behavior=m.Behavior.PAUSE if exhausted else m.Behavior.RETRY,
        )


def failure(error: TerminalError) -> m.Failure:
    """A terminal error as it travels."""
    return m.Failure(error.code, error.message, tuple(error.metadata.items()))


def stacktrace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def is_coroutine_function(action: Callable[..., Any]) -> bool:
    """Like inspect's, which takes ten times as long, but for functions and what is made of them alone."""
    code = _code(action)
    return code is not None and bool(code.co_flags & CO_COROUTINE)


_result_serdes: dict[CodeType, Serde] = {}


def result_serde(action: Callable[..., Any]) -> Serde:
    """The serde of what a function is annotated to return, looked up once per function."""
    code = _code(action)
    if code is None:
        if not callable(action):
            raise UsageError(f"ctx.run takes a function and its arguments, not {type(action).__name__}.")
        return serde_for(Any)
    serde = _result_serdes.get(code)
    if serde is None:
        serde = _result_serdes[code] = serde_for(resolve_hint(_function(action), "return"))
    return serde


def _function(action: Callable[..., Any]) -> Any:
    """The function inside methods, partials and callable objects."""
    while not isinstance(action, FunctionType):
        if isinstance(action, MethodType):
            action = action.__func__
        elif isinstance(action, partial):
            action = action.func
        elif isinstance(call := getattr(type(action), "__call__", None), FunctionType):  # noqa: B004
            action = call
        else:
            return None
    return action


def _code(action: Callable[..., Any]) -> CodeType | None:
    function = action if type(action) is FunctionType else _function(action)
    return None if function is None else function.__code__
