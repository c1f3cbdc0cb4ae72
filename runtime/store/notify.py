"""Channels: LISTEN and NOTIFY on a session of their own.

A transaction that does nothing but notify waits for no disk and no standby.
"""

from __future__ import annotations

import binascii
import logging
from collections.abc import Callable, Mapping

from psycopg.conninfo import make_conninfo

from runtime.store import pack
from runtime.store.link import Link, Pipeline, Statement

log = logging.getLogger(__name__)

LONGEST = 5_900
"""Bytes of a payload: in base64, which breaks its lines, they are less than the 8,000 that PostgreSQL takes."""

PREFIX = "perdure_"

NOTIFY = Statement(
    "SELECT pg_notify(channel, encode(payload, 'base64'))"
    " FROM unnest($1::text[], $2::bytea[]) AS told (channel, payload)",
    pack.TEXTS,
    pack.BYTEAS,
)

# An idle session does not see that the other machine is gone: it would listen to nobody for two hours.
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3}


class Channels:
    """One's own channel to listen to, and everybody else's to speak to."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @classmethod
    async def open(
        cls, conninfo: str, name: str, heard: Callable[[bytes], None], closed: Callable[[], None]
    ) -> Channels:
        """Listen to the channel of that name; `closed` is called when the session ends. Raises Disconnected."""
        link = await Link.connect(make_conninfo(conninfo, **KEEPALIVES))
        link.heard, link.ended = _decoding(heard), closed
        pipeline = Pipeline()
        pipeline.call(Statement(f'LISTEN "{PREFIX}{name}"'))
        await link.run(pipeline)
        return cls(link)

    @property
    def is_closed(self) -> bool:
        return self._link.closed

    async def notify(self, payloads: Mapping[str, bytes]) -> None:
        """Send a payload to each of these names. Raises Disconnected."""
        pipeline = Pipeline()
        pipeline.call(
            NOTIFY, pack.texts([f"{PREFIX}{name}" for name in payloads]), pack.byteas(list(payloads.values()))
        )
        await self._link.run(pipeline)

    def close(self) -> None:
        self._link.close()


def _decoding(heard: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def decode(text: bytes) -> None:
        try:
            payload = binascii.a2b_base64(text)
        except binascii.Error as error:
            log.warning("a notification that none of us has sent: %s", error)
        else:
            heard(payload)

    return decode
