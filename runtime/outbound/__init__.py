"""Requests to deployments: HTTP/2 and HTTP/1.1 to addresses that are allowed, and nowhere else.

`Peer` is one server. Who opens an exchange with it is told by callbacks what comes back, on the loop's thread and
without an await in between, for this is the hot path of every deployment behind a URL.
"""

from runtime.outbound.connection import PeerLimits
from runtime.outbound.exchange import Exchange, Listener
from runtime.outbound.faults import OutboundError
from runtime.outbound.guard import Guard
from runtime.outbound.peer import Peer

__all__ = ["Exchange", "Guard", "Listener", "OutboundError", "Peer", "PeerLimits"]
