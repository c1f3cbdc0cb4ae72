"""Where deployments may be: kinds of addresses, networks and names, and tricks to get elsewhere."""

from __future__ import annotations

import doctest
import importlib
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from runtime.conf import SettingError, Settings
from runtime.outbound.address import Address
from runtime.outbound.faults import AddressRefused, BadAddress, Unreachable
from runtime.outbound.guard import Guard
from tests.support.asking import ask, peer
from tests.support.http2 import Asked, serving

PUBLIC = Guard.read(["public"])
EVERYWHERE = Guard.read(["public", "private", "loopback"])


@pytest.mark.parametrize("module", ["address", "frames", "guard", "squeeze"])
def test_examples_work(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"runtime.outbound.{module}"))
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_the_internet_is_allowed(address: str) -> None:
    assert PUBLIC.allows(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1",  # private
        "127.0.0.1", "127.8.9.1", "::1",  # this machine
        "169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16",  # clouds' secrets
        "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "::127.0.0.1", "2002:7f00:1::",
    ],
)  # fmt: skip
def test_what_is_not_the_internet_is_refused(address: str) -> None:
    assert not PUBLIC.allows(ip_address(address))


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "168.63.129.16", "0.0.0.0", "224.0.0.1"])
def test_no_word_and_no_name_opens_what_clouds_keep_secret(address: str) -> None:
    assert not EVERYWHERE.allows(ip_address(address))
    assert not Guard.read(["metadata.internal"]).allows(ip_address(address), "metadata.internal")
    assert Guard.read([address]).allows(ip_address(address))


def test_networks_and_names_are_listed_one_by_one() -> None:
    guard = Guard.read(["10.1.0.0/16", "db.internal", "*.svc.internal"])

    assert guard.allows(ip_address("10.1.2.3"))
    assert not guard.allows(ip_address("10.2.2.3"))
    assert guard.allows(ip_address("10.2.2.3"), "db.internal")
    assert guard.allows(ip_address("10.2.2.3"), "greeter.svc.internal")
    assert not guard.allows(ip_address("10.2.2.3"), "svc.internal.evil.org")
    assert not guard.allows(ip_address("10.2.2.3"), "other.internal")


@pytest.mark.parametrize("said", ["10.0.0.0/33", "pub lic", "http://a", "10.0.0.300", "10.0.0.1/8"])
def test_a_setting_that_is_none_is_told_with_its_name(said: str) -> None:
    settings = Settings.read({"PERDURE_DEPLOYMENT_ADDRESSES": said})

    with pytest.raises(SettingError, match="PERDURE_DEPLOYMENT_ADDRESSES"):
        Guard.of(settings)


def test_this_machine_is_allowed_as_long_as_nobody_else_comes_in() -> None:
    here = ip_address("127.0.0.1")

    assert Guard.of(Settings.read({})).allows(here)
    assert not Guard.of(Settings.read({"PERDURE_HOSTS": "perdure.example.org"})).allows(here)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "[::1]"])
async def test_however_this_machine_is_written_it_is_this_machine(host: str) -> None:
    with pytest.raises((AddressRefused, Unreachable)):
        await PUBLIC.resolve(Address.parse(f"http://{host}:9080"))


async def test_the_scheme_must_be_allowed() -> None:
    with pytest.raises(AddressRefused, match="https only"):
        await Guard.read(["loopback"], ["https"]).resolve(Address.parse("http://127.0.0.1:9080"))


async def test_a_name_that_has_several_addresses_is_asked_only_at_those_that_are_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("169.254.169.254", "8.8.8.8")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)

    assert await PUBLIC.resolve(Address.parse("http://greeter.example.org")) == ["8.8.8.8"]


async def test_every_connection_is_judged_by_what_the_name_means_then(monkeypatch: pytest.MonkeyPatch) -> None:
    meaning = ["127.0.0.1"]
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *args: Any, **named: Any) -> Any:
        return real(meaning[0] if host == "rebound.test" else host, port, *args, **named)

    async def ok(asked: Asked) -> None:
        asked.head()
        asked.end()

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    async with serving(ok) as server:
        port = server.url.rpartition(":")[2]
        async with peer(f"http://rebound.test:{port}") as it:
            assert (await ask(it).over()).is_ended
            meaning[0] = "169.254.169.254"
            server.connections[0].transport.abort()
            await server.until(lambda: not server.connections)
            ear = ask(it)
            await ear.over()
            if not isinstance(ear.error, AddressRefused):  # it was put on the connection that was just ending
                ear = await ask(it).over()

    assert isinstance(ear.error, AddressRefused)
    assert "link-local" in str(ear.error)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("greeter:9080", "has no scheme"),
        ("", "has no scheme"),
        ("ftp://greeter", "only http:// and https://"),
        ("file:///etc/passwd", "only http:// and https://"),
        ("http://", "names no host"),
        ("http://user:secret@greeter", "would be shown to everybody"),
        ("http://greeter?x=1", "query"),
        ("http://greeter#x", "query or a fragment"),
        ("http://greeter:99999", "is no URL"),
        ("http://greeter:0", "names no host"),
        ("http://gree ter", "characters that a URL may not have"),
        ("http://greeter\r\nhost: x", "characters that a URL may not have"),
        ("http://greeter/\0", "characters that a URL may not have"),
        ("http://gr\u00fc\u00dfer", "characters that a URL may not have"),
        ("http://greeter/../admin", "has a path"),
        ("http://[::1", "is no URL"),
        ("http://" + "a" * 3000, "too long"),
    ],
)
def test_what_is_no_url_of_a_deployment_is_said_in_words(url: str, words: str) -> None:
    with pytest.raises(BadAddress, match=words) as caught:
        Address.parse(url)

    assert caught.value.hint
    assert "secret" not in str(caught.value)


def test_one_deployment_is_written_in_one_way() -> None:
    ways = ["HTTP://Greeter.Internal:80/a/", "http://greeter.internal/a", "http://greeter.internal:80/a//"]

    assert {Address.parse(url).url for url in ways} == {"http://greeter.internal/a"}
