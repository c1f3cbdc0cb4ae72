"""What a handler can wait for: leaves that notifications settle, and branches made of other nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure.protocol import messages as m


class Node:
    """Something that is settled once: a leaf by a notification, others by what they are made of."""

    __slots__ = ("failed", "parents", "settled")

    def __init__(self) -> None:
        self.settled = False
        self.failed = False
        self.parents: list[Branch] | None = None

    def settle(self, failed: bool) -> None:
        self.settled = True
        self.failed = failed
        for parent in self.parents or ():
            if not parent.settled:
                parent.hear(self)

    def wait(self) -> m.Wait:
        """The tree of what is left to wait for."""
        raise NotImplementedError


class Leaf(Node):
    """What a completion id stands for."""

    __slots__ = ("id", "result")

    def __init__(self, id: int, result: m.Result | None = None) -> None:
        self.id = id
        self.result = result
        self.settled = result is not None
        self.failed = False
        self.parents = None

    def hear(self, result: m.Result) -> None:
        self.result = result
        self.settle(failed=type(result) is m.Failure)

    def wait(self) -> m.Wait:
        return m.Wait(completions=(self.id,))


class AwakeableLeaf(Leaf):
    """What a numbered signal settles: `id` is its number."""

    __slots__ = ()

    def wait(self) -> m.Wait:
        return m.Wait(signals=(self.id,))


class SignalLeaf(Leaf):
    """What the next signal of this name settles that nobody else has heard."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(0)
        self.name = name

    def wait(self) -> m.Wait:
        return m.Wait(named_signals=(self.name,))


class Branch(Node):
    """Made of other nodes; hears of each that is settled."""

    __slots__ = ("children",)

    @property
    def combinator(self) -> m.Combinator:
        raise NotImplementedError

    def __init__(self, children: Sequence[Node]) -> None:
        super().__init__()
        self.children = children
        for child in children:
            if child.settled:
                if not self.settled:
                    self.hear(child)
            elif child.parents is None:
                child.parents = [self]
            else:
                child.parents.append(self)

    def hear(self, child: Node) -> None:
        raise NotImplementedError

    def wait(self) -> m.Wait:
        left = [child for child in self.children if not child.settled]
        return m.Wait(
            tuple(child.id for child in left if type(child) is Leaf),
            tuple(child.id for child in left if isinstance(child, AwakeableLeaf)),
            tuple(child.name for child in left if isinstance(child, SignalLeaf)),
            tuple(child.wait() for child in left if isinstance(child, Branch)),
            self.combinator,
        )


class All(Branch):
    """Settled by the last success, or by the first failure (`culprit`)."""

    __slots__ = ("culprit", "missing")

    @property
    def combinator(self) -> m.Combinator:
        return m.Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED

    def __init__(self, children: Sequence[Node]) -> None:
        self.missing = len(children)
        self.culprit: Node | None = None
        super().__init__(children)
        if not children:
            self.settle(failed=False)

    def hear(self, child: Node) -> None:
        self.missing -= 1
        if child.failed:
            self.culprit = child
            self.settle(failed=True)
        elif not self.missing:
            self.settle(failed=False)


class First(Branch):
    """Settled by whichever child is settled first (`winner`); among those settled before, the first named."""

    __slots__ = ("deadline", "winner")

    @property
    def combinator(self) -> m.Combinator:
        # A deadline that is met is a success to the runtime and a failure here: let it wake us, and decide ourselves.
        return m.Combinator.UNKNOWN if self.deadline else m.Combinator.FIRST_COMPLETED

    def __init__(self, children: Sequence[Node], deadline: Leaf | None = None) -> None:
        self.winner: Node | None = None
        self.deadline = deadline
        super().__init__([*children, deadline] if deadline else children)

    def hear(self, child: Node) -> None:
        self.winner = child
        self.settle(failed=child.failed or child is self.deadline)


def until(target: Node) -> m.Wait:
    """A wait for `target`, or for a cancellation."""
    wait = target.wait()
    if wait.combinator in (m.Combinator.FIRST_COMPLETED, m.Combinator.UNKNOWN):
        return m.Wait(wait.completions, (m.CANCEL_SIGNAL, *wait.signals), wait.named_signals, wait.nested)
    return m.Wait(signals=(m.CANCEL_SIGNAL,), nested=(wait,))


def named_signals(target: Node) -> Iterator[SignalLeaf]:
    """The named signals that `target` waits for, in the order of the code, without parts settled meanwhile."""
    if target.settled:
        return
    if isinstance(target, Branch):
        for child in target.children:
            yield from named_signals(child)
            if target.settled:
                return
    elif isinstance(target, SignalLeaf):
        yield target
