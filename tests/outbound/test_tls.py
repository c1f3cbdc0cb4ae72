"""TLS: which HTTP is spoken behind it, whom we trust, and what is said of who speaks something else."""

from __future__ import annotations

import datetime
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from runtime.core.deployments import HttpVersion
from runtime.outbound import Peer
from runtime.outbound import peer as peers
from runtime.outbound.discovery import discover_url
from runtime.outbound.faults import UntrustedServer, WrongProtocol
from tests.support.asking import HERE, ask, peer
from tests.support.deployed import MANIFEST_TYPE, PYTHON
from tests.support.http2 import Asked, serving
from tests.support.http11 import Talk, talking

Server = Callable[..., ssl.SSLContext]
# As Python 3.13 insists on.
KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
Plain = Callable[[Talk], Awaitable[None]]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Makes the TLS of a server, whose certificate is for 127.0.0.1 and trusted unless it is said otherwise."""
    made = 0

    def make(*protocols: str, names: str = "127.0.0.1", is_trusted: bool = True) -> ssl.SSLContext:
        nonlocal made
        made += 1
        file = tmp_path / f"{made}.pem"
        file.write_bytes(certificate(names))
        if is_trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    peers.trust.cache_clear()
    yield make
    peers.trust.cache_clear()


def certificate(address: str) -> bytes:
    """A key and a certificate that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "perdure test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(KEY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + made.public_bytes(Encoding.PEM)


async def echo2(asked: Asked) -> None:
    body = await asked.body()
    asked.head()
    await asked.say(body)
    asked.end()


async def echo1(talk: Talk) -> None:
    while (asked := await talk.request()) is not None:
        await talk.answer(asked[2])


@pytest.mark.parametrize("size", [5, 300_000])
async def test_http2_is_agreed_upon(server: Server, size: int) -> None:
    async with serving(echo2, server("h2", "http/1.1")) as it, peer(it.url) as asker:
        assert it.url.startswith("https://")
        assert (await ask(asker, body=bytes(size)).over()).body == bytes(size)


@pytest.mark.parametrize("protocols", [("http/1.1",), ()])
async def test_http11_is_spoken_when_asked_for(server: Server, protocols: tuple[str, ...]) -> None:
    async with talking(echo1, server(*protocols)) as it, peer(it.url, HttpVersion.HTTP_1_1) as asker:
        assert (await ask(asker, body=b"hello").over()).body == b"hello"


async def test_what_offers_no_http2_is_discovered_over_http11(server: Server) -> None:
    async def old(talk: Talk) -> None:
        while (await talk.request()) is not None:
            await talk.answer(json.dumps(PYTHON).encode(), content_type=MANIFEST_TYPE)

    async with talking(old, server("http/1.1")) as it:
        found = await discover_url(lambda http: Peer(it.url, http=http, guard=HERE), patience=0)

    assert found.reached is not None
    assert found.reached.http_version is HttpVersion.HTTP_1_1


@pytest.mark.parametrize("odd", [{"is_trusted": False}, {"names": "127.0.0.2"}])
async def test_a_server_that_cannot_be_trusted_is_not_asked(server: Server, odd: Mapping[str, Any]) -> None:
    async with serving(echo2, server("h2", **odd)) as it, peer(it.url) as asker:
        ear = await ask(asker).over()

    assert isinstance(ear.error, UntrustedServer)
    assert "cannot be trusted" in str(ear.error)
    assert "SSL_CERT_FILE" in ear.error.hint


async def hang_up(talk: Talk) -> None:
    await talk.reader.read(5)


async def refuse(talk: Talk) -> None:
    await talk.reader.read(5)
    await talk.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("plain", [hang_up, refuse])
@pytest.mark.parametrize("http", list(HttpVersion))
async def test_tls_where_none_is_spoken_is_said_so(server: Server, http: HttpVersion, plain: Plain) -> None:
    async with talking(plain) as it, peer(it.url.replace("http:", "https:"), http) as asker:
        ear = await ask(asker).over()

    assert isinstance(ear.error, WrongProtocol)
    assert "http://" in ear.error.hint


@pytest.mark.parametrize("http", list(HttpVersion))
async def test_no_tls_where_it_is_spoken_is_said_so(server: Server, http: HttpVersion) -> None:
    async with serving(echo2, server("h2")) as it, peer(it.url.replace("https:", "http:"), http) as asker:
        ear = await ask(asker).over()

    assert ear.error is not None
