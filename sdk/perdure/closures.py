"""The functions that `ctx.run` is given: how they are called, what they gave, and whether to try again."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from inspect import CO_COROUTINE, isawaitable
from types import FunctionType, MethodType
from typing import Any

from perdure.errors import TerminalError, UsageError
from perdure.nodes import Leaf
from perdure.protocol import messages as m
from perdure.retry import Retry
from perdure.serde import Serde, serde_for
from perdure.service import resolve_hint


class Closure:
    """One function to be executed, whose result is to be stored as the completion of a Run."""

    __slots__ = ("_action", "_arguments", "_encode", "_named", "_retry", "index", "leaf", "name")

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
        self.name = name
        self._action = action
        self._arguments = arguments
        self._named = named
        self._encode = encode
        self._retry = retry
        self.index = index
        """The place of its command."""
        self.leaf = leaf

    async def execute(self, accept: Callable[[bytes, str], m.Value]) -> m.Value | m.Failure:
        """Call it: coroutine functions here, others in a thread. Raises what it raises, except TerminalError.

        `accept` makes a value of its result, or raises a TerminalError.
        """
        try:
            if is_coroutine_function(self._action):
                result = await self._action(*self._arguments, **self._named)
            else:
                result = await self._in_thread()
            return accept(self._encode(result), f'"{self.name}"')
        except TerminalError as error:
            return failure(error)

    async def _in_thread(self) -> Any:
        result = await asyncio.get_running_loop().run_in_executor(None, copy_context().run, self._call)
        return await result if isawaitable(result) else result  # lambda: client.get(url)

    def _call(self) -> Any:
        try:
            return self._action(*self._arguments, **self._named)
        except StopIteration as error:  # which no future can carry: before Python 3.12 it would never be done
            raise RuntimeError(f'"{self.name}" raised StopIteration') from error

    def judge(self, error: BaseException, earlier_failures: int, earlier: timedelta) -> m.Failure | m.Error:
        """What its failure means: for the handler, when the policy is used up, else for this attempt."""
        failures = earlier_failures + 1
        retry = self._retry or Retry()
        what = in_words(error)
        exhausted = retry.exhausted(failures, earlier)
        if exhausted and retry.on_max_attempts != "pause":
            return m.Failure(500, f'"{self.name}" failed for good after {failures} attempts. {what}')
        delay = retry.delay(failures)
        return m.Error(
            500,
            what,
            stacktrace(error),
            related_command_index=self.index,
            related_command_name=self.name,
            related_command_type=m.Run.CODE,
            next_retry_delay=None if delay is None else round(delay.total_seconds() * 1000),
            behavior=m.Behavior.PAUSE if exhausted else m.Behavior.RETRY,
        )


def failure(error: TerminalError) -> m.Failure:
    """A terminal error as it travels: what is no Unicode (a lone surrogate) is replaced, for it would not arrive.

    Raises UsageError when its code is none: that would not arrive either.
    """
    if not isinstance(error.code, int) or not 0 <= error.code < 1 << 32:
        raise UsageError(f"The code of a {type(error).__name__} reads like an HTTP status, unlike {error.code!r}.")
    metadata = tuple((_unicode(key), _unicode(value)) for key, value in error.metadata.items())
    return m.Failure(error.code, _unicode(error.message), metadata)


def _unicode(text: str) -> str:
    return text.encode(errors="replace").decode()


def in_words(error: BaseException) -> str:
    try:
        return _unicode(f"{type(error).__name__}: {error}")
    except BaseException as unsaid:  # written by its author, too
        return f"{type(error).__name__}, whose text cannot be had: {type(unsaid).__name__}"


def stacktrace(error: BaseException) -> str:
    return _unicode("".join(traceback.format_exception(error)))


def is_coroutine_function(action: Callable[..., Any]) -> bool:
    """Like inspect's, which takes ten times as long, but for functions and what is made of them alone."""
    function = _function(action)
    return function is not None and bool(function.__code__.co_flags & CO_COROUTINE)


_result_types: dict[tuple[str, str], Any] = {}
"""What annotations mean, by module and text: looked up once, and not once per function made in a handler."""


def result_serde(action: Callable[..., Any]) -> Serde:
    """The serde of what a function is annotated to return."""
    if not callable(action):
        raise UsageError(f"ctx.run takes a function and its arguments, not {type(action).__name__}.")
    function = _function(action)
    hint = Any if function is None else function.__annotations__.get("return", Any)
    if function is not None and isinstance(hint, str):
        annotation = (function.__module__, hint)
        hint = _result_types.get(annotation)
        if hint is None:
            hint = _result_types[annotation] = resolve_hint(function, "return")
    return serde_for(hint)


def _function(action: Callable[..., Any]) -> FunctionType | None:
    """The function inside methods, partials and callable objects; None: there is none written in Python."""
    inner: object = action
    while not isinstance(inner, FunctionType):
        if isinstance(inner, MethodType):
            inner = inner.__func__
        elif isinstance(inner, partial):
            inner = inner.func
        else:
            inner = getattr(type(inner), "__call__", None)  # noqa: B004
            if not isinstance(inner, FunctionType):
                return None
    return inner
