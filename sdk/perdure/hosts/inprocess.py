"""The host inside a worker's process: messages are passed as objects, on the event loop's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from perdure.attempt import Attempt, Emit
from perdure.endpoint import Endpoint
from perdure.protocol.limits import DEFAULTS, Limits
from perdure.protocol.messages import Entry, Start
from perdure.protocol.target import Target


class InProcessHost:
    """Makes attempts of an endpoint's handlers."""

    def __init__(
        self, endpoint: Endpoint, *, clock: Callable[[], float] = time.time, limits: Limits = DEFAULTS
    ) -> None:
        self.endpoint = endpoint
        self._limits = limits
        self._clock = clock

    def attempt(
        self,
        target: Target,
        start: Start,
        entries: Sequence[Entry],
        emit: Emit,
        *,
        gated: bool = False,
        on_rest: Callable[[], None] | None = None,
    ) -> Attempt:
        """An attempt that has not begun. `entries` is the journal so far, the input first.

        Its commands and proposals are given to `emit`, and what the runtime answers is given to `notify`. `gated`: no
        `ctx.run` function starts before `open`. `on_rest` is called soon after its handler began to wait. Raises
        UnknownHandler.
        """
        bound = self.endpoint.find(target.service, target.handler)
        key = start.key if target.key is None else target.key
        return Attempt(
            bound.invoke,
            bound.context,
            key,
            start,
            entries,
            emit,
            self._clock,
            gated=gated,
            limits=self._limits,
            on_rest=on_rest,
        )
