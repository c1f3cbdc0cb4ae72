"""The registry's rows: registering once, again, anew, together, and what may not be registered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure import Context, Endpoint, ObjectContext, Service, VirtualObject, handler
from perdure.protocol.manifest import Manifest
from runtime.core.deployments import HttpVersion, Reached
from runtime.core.invocation import Mode
from runtime.discovery import deployment_id
from runtime.store.deployments import (
    Registered,
    ServiceElsewhere,
    ServiceTypeChanged,
    UrlTaken,
    http_deployments,
    load_registry,
    store_deployment,
)
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
    return await store_deployment(link, id=deployment_id(endpoint), location="shop:app", manifest=endpoint.manifest())


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


# Behind a URL

URL = "http://greeter:9080"
V6 = Reached(HttpVersion.HTTP_2, 6, "restate-sdk-python/1.3.0", {"authorization": "Bearer one"})


async def register_url(
    link: Link,
    *services: type[Service | VirtualObject],
    id: str,
    url: str = URL,
    reached: Reached = V6,
    force: bool = False,
) -> Registered:
    manifest = Endpoint(*services).manifest()
    return await store_deployment(link, id=id, location=url, manifest=manifest, reached=reached, force=force)


async def test_what_is_behind_a_url_is_told_to_engines_with_all_that_they_need(link: Link) -> None:
    await register(link, Mailbox)
    await register_url(link, Greeter, id="dp_1")

    (found,) = await http_deployments(link)

    assert (found.id, found.url, found.http_version, found.protocol_version) == ("dp_1", URL, HttpVersion.HTTP_2, 6)
    assert found.headers == {"authorization": "Bearer one"}
    assert Manifest.from_json(found.manifest) == Endpoint(Greeter).manifest()
    assert found.protocol_mode == Endpoint(Greeter).manifest().protocol_mode
    assert "Bearer" not in repr(found) + repr(V6)


async def test_known_code_behind_a_url_may_change_its_secrets_and_keeps_its_protocol(link: Link) -> None:
    await register_url(link, Greeter, id="dp_1")
    registry = await load_registry(link)

    same = await register_url(link, Greeter, id="dp_1")
    assert await load_registry(link, registry) is registry
    silent = await register_url(link, Greeter, id="dp_1", reached=Reached(HttpVersion.HTTP_1_1, 7, V6.sdk))
    (kept,) = await http_deployments(link)
    changed = await register_url(link, Greeter, id="dp_1", reached=Reached(HttpVersion.HTTP_1_1, 7, V6.sdk, {"a": "b"}))
    (found,) = await http_deployments(link)

    assert [same.is_new, silent.is_new, changed.is_new] == [False, False, False]
    assert (kept.headers, kept.http_version) == (V6.headers, HttpVersion.HTTP_1_1)
    assert (found.headers, found.protocol_version) == ({"a": "b"}, 6)
    assert (await load_registry(link, registry)).version != registry.version


async def test_other_code_behind_the_same_url_takes_force(link: Link) -> None:
    await register_url(link, Greeter, id="dp_1")

    with pytest.raises(UrlTaken, match=r"said other things of itself: dp_1 \(begun on it: 0\)") as refused:
        await register_url(link, Greeter, Mailbox, id="dp_2")
    forced = await register_url(link, Greeter, Mailbox, id="dp_2", force=True)
    again = await register_url(link, Greeter, Mailbox, id="dp_2")

    assert "URL of its own" in refused.value.hint
    assert forced.warnings == (str(refused.value),)
    assert (again.is_new, again.warnings) == (False, ())
    assert (await load_registry(link)).resolve("Greeter", "greet").deployment == "dp_2"


async def test_code_that_comes_back_to_a_url_is_other_code_again(link: Link) -> None:
    await register_url(link, Greeter, id="dp_1")
    await register_url(link, Greeter, Mailbox, id="dp_2", force=True)

    with pytest.raises(UrlTaken):
        await register_url(link, Greeter, id="dp_1")


async def test_a_new_revision_behind_a_url_of_its_own_needs_no_force(link: Link) -> None:
    await register_url(link, Greeter, id="dp_1")

    second = await register_url(link, Greeter, id="dp_2", url="http://greeter-v2:9080")

    assert second.warnings == ()
    assert (await load_registry(link)).services["Greeter"].revision == 2


async def test_a_service_that_moves_from_a_module_to_a_url_takes_force(link: Link) -> None:
    await register(link, Greeter)

    with pytest.raises(ServiceElsewhere):
        await register_url(link, Greeter, id="dp_1")
