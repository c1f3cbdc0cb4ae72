"""Finding out what is behind a URL: real manifests, every HTTP, what is wrong in words, and servers that mean harm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from perdure.protocol.manifest import Manifest
from runtime.core.deployments import HttpVersion
from runtime.discovery import Discovered
from runtime.outbound import OutboundError, Peer, PeerLimits, discovery
from runtime.outbound.discovery import Asleep, BadManifest, NoDeployment, NothingInCommon, discover_url
from runtime.outbound.faults import AddressRefused, BrokenProtocol, ConnectionLost, Unreachable, WrongProtocol
from tests.support.asking import HERE
from tests.support.deployed import MANIFEST_TYPE, PYTHON, TYPESCRIPT, Deployed, deployed, one_service
from tests.support.http2 import Asked, serving
from tests.support.http11 import Talk, talking


async def discover(url: str, headers: Mapping[str, str] | None = None, **said: Any) -> Discovered:
    limits = PeerLimits(connect=said.pop("connect", 5.0))

    def ask(http: HttpVersion) -> Peer:
        return Peer(url, http=http, guard=HERE, headers=headers, limits=limits)

    return await discover_url(ask, headers=headers, **{"patience": 0.0, **said})


async def refusal(url: str, **said: Any) -> OutboundError:
    """Why it is no deployment."""
    with pytest.raises(OutboundError) as caught:
        await discover(url, **said)
    assert caught.value.hint or isinstance(caught.value, ConnectionLost)
    return caught.value


@pytest.fixture
async def there() -> AsyncIterator[Deployed]:
    async with deployed() as one:
        yield one


@pytest.mark.parametrize("manifest", [TYPESCRIPT, PYTHON])
async def test_what_the_sdks_say_is_understood(there: Deployed, manifest: dict[str, Any]) -> None:
    there.manifest = manifest
    found = await discover(there.url, metadata={"team": "core"})

    assert found.location == there.url
    assert found.reached is not None
    assert (found.reached.http_version, found.reached.protocol_version) == (HttpVersion.HTTP_2, 7)
    assert (found.reached.sdk, found.reached.metadata) == ("restate-sdk-python/1.3.0", {"team": "core"})
    names = [service.name for service in Manifest.from_json(found.manifest).services]
    assert names == [service["name"] for service in manifest["services"]]
    assert there.asked[0][":path"] == "/discover"
    assert there.asked[0]["accept"].startswith("application/vnd.restate.endpointmanifest.v5+json, ")


@pytest.mark.parametrize("version", [2, 3, 4, 5])
async def test_every_version_of_the_manifest_is_understood(there: Deployed, version: int) -> None:
    there.kind = f"application/vnd.restate.endpointmanifest.v{version}+json; charset=utf-8"

    assert (await discover(there.url)).reached


async def test_what_a_newer_sdk_adds_to_a_manifest_is_passed_over(there: Deployed) -> None:
    there.manifest = {**PYTHON, "lambdaCompression": "zstd", "news": {"a": 1}}

    assert (await discover(there.url)).manifest == Manifest.from_json(json.dumps(PYTHON).encode()).to_json()


async def test_the_same_code_at_the_same_url_has_the_same_name(there: Deployed) -> None:
    first = await discover(there.url)
    same = await discover(there.url + "/", newest=6)
    elsewhere = await discover(there.url + "/v2")
    there.manifest = one_service()
    other = await discover(there.url)

    assert first.id == same.id
    assert len({first.id, elsewhere.id, other.id}) == 3


async def test_what_is_said_with_every_request_is_said_here_too(there: Deployed) -> None:
    found = await discover(there.url, {"Authorization": "Bearer secret"})

    assert there.asked[0]["authorization"] == "Bearer secret"
    assert found.reached is not None
    assert "secret" not in repr(found)


async def test_http11_is_spoken_where_http2_is_not() -> None:
    async def old(talk: Talk) -> None:
        if (asked := await talk.request()) is None:
            return
        target, headers, _ = asked
        assert (target, headers["host"][:9]) == ("/discover", "127.0.0.1")
        await talk.answer(json.dumps(PYTHON).encode(), content_type=MANIFEST_TYPE)

    async with talking(old) as line:
        found = await discover(line.url)
        asked_for = await discover(line.url, http=HttpVersion.HTTP_1_1)

    assert found.reached is not None
    assert found.reached.http_version is HttpVersion.HTTP_1_1
    assert asked_for == found


async def test_asked_for_http11_a_server_of_http2_is_told_from_it(there: Deployed) -> None:
    error = await refusal(there.url, http=HttpVersion.HTTP_1_1)

    assert isinstance(error, WrongProtocol)
    assert "HTTP/2 only" in str(error)


@pytest.mark.parametrize(
    ("least", "most", "newest", "version"), [(5, 7, 7, 7), (1, 6, 7, 6), (5, 9, 6, 6), (7, 7, 7, 7), (5, 5, 7, 5)]
)
async def test_the_newest_common_version_of_the_protocol_is_chosen(
    there: Deployed, least: int, most: int, newest: int, version: int
) -> None:
    there.manifest = one_service(minProtocolVersion=least, maxProtocolVersion=most)
    found = await discover(there.url, newest=newest)

    assert found.reached is not None
    assert found.reached.protocol_version == version


@pytest.mark.parametrize(("least", "most", "newest"), [(1, 4, 7), (8, 9, 7), (7, 7, 6)])
async def test_nothing_in_common_is_said_with_both_sides(there: Deployed, least: int, most: int, newest: int) -> None:
    there.manifest = one_service(minProtocolVersion=least, maxProtocolVersion=most)
    error = await refusal(there.url, newest=newest)

    assert isinstance(error, NothingInCommon)
    assert f"versions {least} to {most}" in str(error)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "leads to somewhere else"),
        (401, "does not accept who asks"),
        (404, "has nothing at /discover"),
        (415, "none of the manifest's versions"),
        (418, "status 418"),
        (503, "status 503"),
    ],
)
async def test_what_a_status_means_is_said_and_the_body_is_not(there: Deployed, status: int, words: str) -> None:
    there.status, there.manifest = status, b"<secret of a neighbour>"
    error = await refusal(there.url)

    assert isinstance(error, NoDeployment)
    assert words in str(error)
    assert "secret" not in f"{error} {error.hint}"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text/html; charset=utf-8", "a page for people"),
        ("application/json", "not with a manifest"),
        ("application/vnd.restate.endpointmanifest.v9+json", "version 9 of the manifest"),
        ("application/vnd.restate.endpointmanifest.v1+json", "version 1 of the manifest"),
    ],
)
async def test_what_is_no_manifest_is_told_by_its_kind(there: Deployed, kind: str, words: str) -> None:
    there.kind = kind
    error = await refusal(there.url)

    assert isinstance(error, NoDeployment)
    assert words in str(error)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in one_service().items() if key != name}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"", "cannot be understood"),
        (b"{", "cannot be understood"),
        (b"\xff\xfe", "cannot be understood"),
        (b"[" * 100_000, "cannot be understood"),
        (json.dumps(one_service("a\0b")).encode(), "NUL"),
        (json.dumps(one_service(documentation="x")).replace('"x"', '"\\ud800"').encode(), "cannot be understood"),
        (without("protocolMode"), "protocolMode"),
        (without("services"), "services"),
        (one_service("white space"), "matching regex"),
        (one_service("Greeter", "LAMBDA"), "ty"),
        (one_service(minProtocolVersion=10**40), "cannot be understood"),
        ({**one_service(), "services": [{**one_service()["services"][0], "abortTimeout": 10**40}]}, "abortTimeout"),
        (one_service(services=[]), "has no services"),
        ({**one_service(), "services": one_service()["services"] * 2}, "two services of the name 'Greeter'"),
        (one_service("Greeter", "SERVICE", "greet", "greet"), "two handlers of the name 'greet'"),
    ],
)
async def test_a_manifest_that_makes_no_sense_is_refused_with_the_place(
    there: Deployed, manifest: Any, words: str
) -> None:
    there.manifest = manifest
    error = await refusal(there.url)

    assert isinstance(error, BadManifest)
    assert words in str(error)


async def test_a_handler_of_a_kind_that_its_service_cannot_have_is_refused(there: Deployed) -> None:
    there.manifest = one_service("Box", "VIRTUAL_OBJECT")
    there.manifest["services"][0]["handlers"][0]["ty"] = "WORKFLOW"

    assert "Box/greet is a workflow handler of a virtual object" in str(await refusal(there.url))


async def test_a_server_that_is_just_starting_is_asked_again(there: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "FIRST_PAUSE", 0.001)
    there.status = 503
    asking = asyncio.ensure_future(discover(there.url, patience=10.0))
    await there.server.until(lambda: len(there.asked) > 2)
    there.status = 200

    assert (await asking).location == there.url


async def test_a_typescript_sdk_that_tells_all_and_answers_nothing_is_found_out_at_once(
    there: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.manifest, there.sdk = TYPESCRIPT, "restate-sdk-typescript/1.17.2"
    assert (await discover(there.url)).reached
    monkeypatch.setattr(discovery, "AWAKE_WITHIN", 0.1)
    there.is_awake = False
    error = await refusal(there.url)

    assert isinstance(error, Asleep)
    assert "Node 22" in error.hint
    assert (there.asked[-1][":path"], there.asked[-1]["content-type"]) == (
        "/invoke/Greeter/greet",
        "application/vnd.restate.invocation.v7",
    )


async def test_other_sdks_are_not_invoked_to_find_out(there: Deployed) -> None:
    await discover(there.url)

    assert [asked[":method"] for asked in there.asked] == ["GET"]


async def test_nobody_there_is_said_with_the_address() -> None:
    async with deployed() as gone:
        url = gone.url
    error = await refusal(url)

    assert isinstance(error, Unreachable)
    assert url in str(error)


# Servers that mean harm, or have gone mad


async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    async def silent(talk: Talk) -> None:
        await talk.reader.read(-1)

    async with talking(silent) as line:
        error = await refusal(line.url, connect=0.05, http=HttpVersion.HTTP_2)

    assert isinstance(error, Unreachable)
    assert "has not answered within" in str(error)


@pytest.mark.parametrize("http", list(HttpVersion))
async def test_an_answer_that_trickles_is_not_waited_for(http: HttpVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "WITHIN", 0.2)

    async def trickle2(asked: Asked) -> None:
        asked.head(content_type=MANIFEST_TYPE)
        while True:
            await asked.say(b" ")
            await asyncio.sleep(0.01)

    async def trickle1(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\n")
        while True:
            await talk.say(b"x: y\r\n")
            await asyncio.sleep(0.01)

    async with serving(trickle2) as server, talking(trickle1) as line:
        error = await refusal(server.url if http is HttpVersion.HTTP_2 else line.url, http=http)

    assert "has not sent its whole answer" in str(error)


@pytest.mark.parametrize("http", list(HttpVersion))
async def test_an_endless_body_is_not_read_on(http: HttpVersion) -> None:
    async def endless2(asked: Asked) -> None:
        asked.head(content_type=MANIFEST_TYPE)
        while True:
            await asked.say(bytes(65536))

    async def endless1(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await talk.say(b"10000\r\n" + bytes(65536) + b"\r\n")

    async with serving(endless2) as server, talking(endless1) as line:
        error = await refusal(server.url if http is HttpVersion.HTTP_2 else line.url, http=http)

    assert isinstance(error, BrokenProtocol)
    assert "larger answer than is taken" in str(error)


async def test_an_endless_head_is_not_read_on() -> None:
    async def endless(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\n")
        while True:
            await talk.say(b"x: " + b"y" * 1000 + b"\r\n")

    async with talking(endless) as line:
        assert isinstance(await refusal(line.url, http=HttpVersion.HTTP_1_1), BrokenProtocol)


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/"])
async def test_a_redirect_leads_nowhere(target: str) -> None:
    async def redirect(asked: Asked) -> None:
        asked.head(307, location=target)
        asked.end()

    async with serving(redirect) as server:
        error = await refusal(server.url)

    assert "nobody is followed" in str(error)
    assert target not in str(error)


@pytest.mark.parametrize(
    "noise", [b"\0" * 100, b"220 mail.example.com ESMTP\r\n", b"\x16\x03\x01\x02\x00", b"\xff" * 5000, b"HTTP/9.9 hi"]
)
async def test_noise_is_no_deployment(noise: bytes) -> None:
    async def make_noise(talk: Talk) -> None:
        await talk.reader.read(10)
        await talk.say(noise)

    async with talking(make_noise) as line:
        await refusal(line.url, connect=1.0)


async def test_what_may_not_be_asked_is_not_asked() -> None:
    with pytest.raises(AddressRefused):
        await discover("http://169.254.169.254")
