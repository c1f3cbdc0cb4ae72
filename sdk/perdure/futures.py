"""What a handler awaits: futures that the journal settles, the same way in every replay."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from perdure.errors import TerminalError, TimeoutError, UsageError
from perdure.nodes import All, First, Leaf, Node
from perdure.protocol import messages as m

if TYPE_CHECKING:
    from perdure.context import Context

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
T_co = TypeVar("T_co", covariant=True)


class DurableFuture(Generic[T_co]):
    """Something that will be known: await it, now or later, or combine it with `gather` and `first`.

    Awaiting gives the value or raises; awaiting again gives the same. `context` and `node` are the SDK's own.
    """

    __slots__ = ("context", "node")

    def __init__(self, context: Context, node: Node) -> None:
        self.context = context
        self.node = node

    @property
    def done(self) -> bool:
        """Whether awaiting gives an answer at once. Changes at an await only, in every replay at the same one."""
        return self.node.settled

    def __await__(self) -> Generator[Any, None, T_co]:
        if not self.node.settled:
            yield from self.context.machine.wait(self.node)
        return self.answer()

    def answer(self) -> T_co:
        """The value, once it is settled; raises what the future raises."""
        raise NotImplementedError


class Reply(DurableFuture[T_co]):
    """Settled by one notification."""

    __slots__ = ("_decode", "_leaf")

    def __init__(self, context: Context, leaf: Leaf, decode: Callable[[bytes], T_co]) -> None:
        self.context = context
        self.node = self._leaf = leaf
        self._decode = decode

    def answer(self) -> T_co:
        result: Any = self._leaf.result
        match result:
            case m.Value():
                return self._decode(result.content)
            case m.Failure():
                raise TerminalError(result.message, code=result.code, metadata=dict(result.metadata))
            case m.InvocationRef():
                result = result.invocation_id
            case m.StateKeys():
                result = list(result.keys)
            case _:
                result = None
        answer: T_co = result
        return answer


class CallFuture(Reply[T_co]):
    """A call under way: await it for the callee's answer; a terminal error of the callee is raised here."""

    __slots__ = ("_callee",)

    def __init__(self, context: Context, leaf: Leaf, decode: Callable[[bytes], T_co], callee: Leaf) -> None:
        self.context = context
        self.node = self._leaf = leaf
        self._decode = decode
        self._callee = callee

    def invocation_id(self) -> DurableFuture[str]:
        """The callee's id, known long before it ends: for `ctx.cancel`, or to be told to others."""
        return Reply(self.context, self._callee, bytes.decode)


class Awakeable(Reply[T_co]):
    """Something that somebody else will bring: tell them its `id`, and await it."""

    __slots__ = ("id",)

    def __init__(self, context: Context, leaf: Leaf, decode: Callable[[bytes], T_co], id: str) -> None:
        super().__init__(context, leaf, decode)
        self.id = id


class SendHandle:
    """A message on its way: durable as it is, whether anything here is awaited or not."""

    __slots__ = ("_callee", "_context")

    def __init__(self, context: Context, callee: Leaf) -> None:
        self._context = context
        self._callee = callee

    def invocation_id(self) -> DurableFuture[str]:
        """The id of the invocation that the message starts."""
        return Reply(self._context, self._callee, bytes.decode)


class Gathered(DurableFuture[T_co]):
    """All of some futures."""

    __slots__ = ("_futures", "_whole")

    def __init__(self, context: Context, futures: Sequence[DurableFuture[Any]], timeout: timedelta | None) -> None:
        self._futures = futures
        self._whole = All([future.node for future in futures])
        super().__init__(context, _limited(context, self._whole, timeout))

    def answer(self) -> T_co:
        if not self._whole.settled:
            raise TimeoutError
        for future in self._futures:
            if future.node is self._whole.culprit:
                future.answer()
        answers: Any = tuple([future.answer() for future in self._futures])
        return answers  # type: ignore[no-any-return]


class Race(DurableFuture[T_co]):
    """The first of some futures."""

    __slots__ = ("_first", "_futures")

    def __init__(self, context: Context, futures: Sequence[DurableFuture[T_co]], timeout: timedelta | None) -> None:
        self._futures = futures
        deadline = None if timeout is None else context.alarm(timeout)
        self._first = First([future.node for future in futures], deadline)
        super().__init__(context, self._first)

    @property
    def winner(self) -> DurableFuture[T_co] | None:
        """Which it was: one of those that were given. None: nobody yet, or the time-out."""
        for future in self._futures:
            if future.node is self._first.winner:
                return future
        return None

    def answer(self) -> T_co:
        winner = self.winner
        if winner is None:
            raise TimeoutError
        return winner.answer()


def _limited(context: Context, node: Node, timeout: timedelta | None) -> Node:
    return node if timeout is None or node.settled else First([node], context.alarm(timeout))


def _context_of(futures: Sequence[Any], name: str) -> Context:
    context: Any = None  # of nothing, which is there at once: nobody will ask for it
    for future in futures:
        if not isinstance(future, DurableFuture):
            raise UsageError(
                f"perdure.{name} takes what ctx gives (calls, runs, sleeps, of a promise its get()), "
                f"not {type(future).__name__}."
            )
        context = future.context
    return context  # type: ignore[no-any-return]


@overload
def gather(a: DurableFuture[A], /, *, timeout: timedelta | None = None) -> DurableFuture[tuple[A]]: ...
@overload
def gather(
    a: DurableFuture[A], b: DurableFuture[B], /, *, timeout: timedelta | None = None
) -> DurableFuture[tuple[A, B]]: ...
@overload
def gather(
    a: DurableFuture[A], b: DurableFuture[B], c: DurableFuture[C], /, *, timeout: timedelta | None = None
) -> DurableFuture[tuple[A, B, C]]: ...
@overload
def gather(
    a: DurableFuture[A],
    b: DurableFuture[B],
    c: DurableFuture[C],
    d: DurableFuture[D],
    /,
    *,
    timeout: timedelta | None = None,
) -> DurableFuture[tuple[A, B, C, D]]: ...
@overload
def gather(*futures: DurableFuture[T], timeout: timedelta | None = None) -> DurableFuture[tuple[T, ...]]: ...
def gather(*futures: DurableFuture[Any], timeout: timedelta | None = None) -> DurableFuture[Any]:
    """All of these, as a tuple in the order given; the first failure is raised at once, and the others go on.

    With a `timeout`, TimeoutError is raised when not all came in time.

    >>> async def prices(ctx: Context) -> int:
    ...     ours, theirs = await gather(ctx.run("ours", len, "aa"), ctx.run("theirs", len, "b"))
    ...     return ours - theirs
    """
    return Gathered(_context_of(futures, "gather"), futures, timeout)


@overload
def first(a: DurableFuture[A], /, *, timeout: timedelta | None = None) -> Race[A]: ...
@overload
def first(a: DurableFuture[A], b: DurableFuture[B], /, *, timeout: timedelta | None = None) -> Race[A | B]: ...
@overload
def first(
    a: DurableFuture[A], b: DurableFuture[B], c: DurableFuture[C], /, *, timeout: timedelta | None = None
) -> Race[A | B | C]: ...
@overload
def first(*futures: DurableFuture[T], timeout: timedelta | None = None) -> Race[T]: ...
def first(*futures: DurableFuture[Any], timeout: timedelta | None = None) -> Race[Any]:
    """Whichever of these is settled first, value or failure; its `winner` says which. The others go on.

    Of several that are settled already it is the first named. With a `timeout`, TimeoutError is raised when none came
    in time: `await first(call, timeout=timedelta(seconds=5))` limits a single one.

    >>> async def patient(ctx: Context) -> bool:
    ...     work, alarm = ctx.run("work", len, "a"), ctx.sleep(timedelta(seconds=5))
    ...     race = first(work, alarm)
    ...     await race
    ...     return race.winner is work
    """
    if not futures:
        raise UsageError("perdure.first needs something to wait for.")
    return Race(_context_of(futures, "first"), futures, timeout)
