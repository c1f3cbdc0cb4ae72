"""A workflow's promises: what its handlers wait for, and give each other."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from perdure.closures import failure
from perdure.errors import TerminalError
from perdure.futures import DurableFuture, Reply
from perdure.protocol import messages as m
from perdure.serde import Serde

if TYPE_CHECKING:
    from perdure.context import Context

T = TypeVar("T")


class DurablePromise(Generic[T]):
    """A value that a workflow's handlers wait for, and that one of them gives, once: `await promise`."""

    __slots__ = ("_context", "_name", "_serde")

    def __init__(self, context: Context, name: str, serde: Serde) -> None:
        self._context = context
        self._name = name
        self._serde = serde

    def __await__(self) -> Generator[Any, None, T]:
        return self.get().__await__()

    def get(self) -> DurableFuture[T]:
        """What it is given; raises what it is rejected with. For `gather` and `first`."""
        return Reply(self._context, self._context.machine.get_promise(self._name), self._serde.decode)

    def peek(self) -> DurableFuture[T | None]:
        """What it was given, or None: nothing yet."""
        return Reply(self._context, self._context.machine.peek_promise(self._name), self._serde.decode)

    def resolve(self, value: T) -> DurableFuture[None]:
        """Give it, without an await; awaited it raises TerminalError (409) where it was given already."""
        return self._complete(m.Value(self._serde.encode(value)))

    def reject(self, reason: str, *, code: int = 500) -> DurableFuture[None]:
        """Let those who wait for it fail with a TerminalError; as `resolve`."""
        return self._complete(failure(TerminalError(reason, code=code)))

    def _complete(self, result: m.Value | m.Failure) -> DurableFuture[None]:
        return Reply(self._context, self._context.machine.complete_promise(self._name, result), _nothing)


def _nothing(_: bytes) -> None:
    return None
