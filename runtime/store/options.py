"""What operators have set on services: changed one at a time; engines and ingresses know it half a second later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from runtime.core.audit import Act
from runtime.core.registry import UnknownService
from runtime.store import audit, pack
from runtime.store.deployments import ONE_AT_A_TIME
from runtime.store.link import Link, Pipeline, Statement, rows, whole

IS_SERVICE = Statement("SELECT FROM service WHERE name = $1::text", pack.TEXT)

# A null takes an option back.
SET = Statement(
    """
INSERT INTO service_options AS said (service, options, edits)
VALUES ($1::text, jsonb_strip_nulls($2::text::jsonb), 1)
ON CONFLICT (service) DO UPDATE
SET options = jsonb_strip_nulls(said.options || $2::text::jsonb), edits = said.edits + 1
RETURNING options::text
""",
    pack.TEXT,
    pack.TEXT,
)


# Something else about the service has changed that belongs to the registry.
EDIT = Statement(
    """
INSERT INTO service_options AS said (service, edits) VALUES ($1::text, 1)
ON CONFLICT (service) DO UPDATE SET edits = said.edits + 1
""",
    pack.TEXT,
)


async def set_options(link: Link, service: str, change: Mapping[str, Any], act: Act | None = None) -> dict[str, Any]:
    """Change what is set on a service, in the manifest's words; answers all that is set now. Raises UnknownService."""
    found: list[bytes] = []
    setting = Pipeline()
    setting.call(
        SET, service.encode(), msgspec.json.encode(change), read=lambda result: found.append(rows(result)[0][0])
    )
    audit.note(setting, act, "set")
    await of_service(link, service, setting)
    options: dict[str, Any] = msgspec.json.decode(found[0])
    return options


async def of_service(link: Link, service: str, change: Pipeline) -> None:
    """Run what changes a service, one change of the registry at a time; raises UnknownService, and changes nothing."""
    known: list[int] = []
    looking = Pipeline()
    looking.begin()
    looking.call(ONE_AT_A_TIME)
    looking.call(IS_SERVICE, service.encode(), read=lambda result: known.append(result.ntuples))
    change.commit()
    async with whole(link):
        await link.run(looking)
        if not known[0]:
            raise UnknownService(f"There is no service {service!r}.")
        await link.run(change)
