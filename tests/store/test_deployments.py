"""The registry's rows: registering once, again, anew, together, and what may not be registered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from runtime.core.invocation import Mode
from runtime.discovery import deployment_id
from runtime.store.deployments import Registered, ServiceTypeChanged, load_registry, store_deployment
from runtime.store.link import Link


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return name


class Mailbox(VirtualObject):
    @handler
    async def put(self, ctx: ObjectContext, text: str) -> None: ...

    @handler(shared=True)
    async def letters(self, ctx: ObjectContext) -> list[str]:
        return []


class GreeterAsObject(VirtualObject, name="Greeter"):
    @handler
    async def greet(self, ctx: ObjectContext, name: str) -> str:
        return name


@pytest.fixture
async def link(database: str) -> AsyncIterator[Link]:
    link = await Link.connect(database)
    yield link
    link.close()


async def register(link: Link, *services: type[Service | VirtualObject]) -> Registered:
    endpoint = Endpoint(*services)
    return await store_deployment(
        link, id=deployment_id(endpoint), kind="module", location="shop:app", manifest=endpoint.manifest()
    )


async def test_what_was_registered_is_in_the_registry(link: Link) -> None:
    registered = await register(link, Greeter, Mailbox)

    registry = await load_registry(link)

    assert registered.is_new
    assert registered.services == ("Greeter", "Mailbox") == tuple(registry.services)
    assert registry.resolve("Mailbox", "put").mode is Mode.EXCLUSIVE
    assert registry.resolve("Mailbox", "letters").mode is Mode.SHARED
    assert registry.resolve("Greeter", "greet").deployment == registered.deployment_id


async def test_registering_the_same_again_changes_nothing(link: Link) -> None:
    await register(link, Greeter)
    before = await load_registry(link)

    again = await register(link, Greeter)

    assert not again.is_new
    assert await load_registry(link, before) is before


async def test_a_new_deployment_takes_over_its_services_and_leaves_the_others(link: Link) -> None:
    old = await register(link, Greeter, Mailbox)
    new = await register(link, Greeter)

    services = (await load_registry(link)).services

    assert (services["Greeter"].deployment, services["Greeter"].revision) == (new.deployment_id, 2)
    assert (services["Mailbox"].deployment, services["Mailbox"].revision) == (old.deployment_id, 1)


async def test_an_old_deployment_can_take_over_again(link: Link) -> None:
    old = await register(link, Greeter, Mailbox)
    await register(link, Greeter)

    again = await register(link, Greeter, Mailbox)

    assert again == Registered(old.deployment_id, ("Greeter", "Mailbox"), is_new=False)
    assert (await load_registry(link)).services["Greeter"].revision == 3


async def test_a_registry_is_loaded_anew_when_something_changed(link: Link) -> None:
    await register(link, Greeter)
    before = await load_registry(link)

    await register(link, Greeter, Mailbox)

    after = await load_registry(link, before)
    assert "Mailbox" in after.services
    assert after.version != before.version


async def test_a_service_that_changes_its_type_is_refused_and_nothing_is_stored(link: Link) -> None:
    await register(link, Greeter)
    before = await load_registry(link)

    with pytest.raises(ServiceTypeChanged, match="'Greeter' is registered as SERVICE and would become VIRTUAL_OBJECT"):
        await register(link, Mailbox, GreeterAsObject)

    assert await load_registry(link, before) is before


async def test_registrations_at_the_same_time_all_count(database: str, link: Link) -> None:
    links = [await Link.connect(database) for _ in range(4)]
    try:
        await asyncio.gather(*(register(one, Greeter, Mailbox) for one in links), *[register(link, Greeter)])
        services = (await load_registry(link)).services
    finally:
        for one in links:
            one.close()

    assert set(services) == {"Greeter", "Mailbox"}
    assert services["Mailbox"].revision == 1
