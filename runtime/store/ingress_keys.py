"""The keys of callers: made, taken back, and never stored.

A service without keys is open to whoever reaches the ingress. So the last one is not taken back by mistake: a key that
has leaked is followed by a new one first.
"""

from __future__ import annotations

import secrets

from msgspec import Struct

from runtime.core.audit import Act
from runtime.core.callers import digest
from runtime.errors import RuntimeFault
from runtime.store import audit, pack
from runtime.store.deployments import ONE_AT_A_TIME
from runtime.store.link import Link, Pipeline, Statement, rows, whole
from runtime.store.options import EDIT, of_service

ADD = Statement(
    """
INSERT INTO ingress_key (id, service, digest, note, created_by)
VALUES ($1::text, $2::text, $3::bytea, $4::text, $5::text)
""",
    pack.TEXT,
    pack.TEXT,
    pack.BYTEA,
    pack.TEXT,
    pack.TEXT,
)
IDS = Statement("SELECT id FROM ingress_key WHERE service = $1::text", pack.TEXT)
REMOVE = Statement("DELETE FROM ingress_key WHERE id = $1::text", pack.TEXT)


class UnknownKey(RuntimeFault):
    """The service has no key of this id."""

    code = "unknown_key"


class LastKey(RuntimeFault):
    """Without this key the service would be open to whoever reaches the ingress."""

    code = "last_key"
    hint = "Make another one first, or take it back with open=true (--open) if that is meant."


class NewKey(Struct, frozen=True):
    """A key, in the only moment in which it can be told."""

    id: str
    key: str


async def create_key(link: Link, service: str, note: str, act: Act) -> NewKey:
    """A further key of a service; from now on it is called with one. Raises UnknownService."""
    id = f"pk_{secrets.token_hex(4)}"
    key = f"{id}_{secrets.token_urlsafe(32)}"
    adding = Pipeline()
    adding.call(ADD, id.encode(), service.encode(), digest(key.encode()), note.encode(), act.actor.name.encode())
    adding.call(EDIT, service.encode())
    audit.note(adding, act, "created")
    await of_service(link, service, adding)
    return NewKey(id, key)


async def revoke_key(link: Link, service: str, id: str, act: Act, *, open: bool = False) -> int:
    """Take a key back; answers how many the service still has. Raises UnknownKey, LastKey."""
    ids: list[str] = []
    looking = Pipeline()
    looking.begin()
    looking.call(ONE_AT_A_TIME)
    looking.call(IDS, service.encode(), read=lambda result: ids.extend(row[0].decode() for row in rows(result)))
    removing = Pipeline()
    removing.call(REMOVE, id.encode())
    removing.call(EDIT, service.encode())
    audit.note(removing, act, "revoked")
    removing.commit()
    async with whole(link):
        await link.run(looking)
        if id not in ids:
            raise UnknownKey(f"The service {service!r} has no key {id!r}.")
        if len(ids) == 1 and not open:
            raise LastKey(f"{id} is the only key of {service!r}: without it the service would be open to everybody.")
        await link.run(removing)
    return len(ids) - 1
