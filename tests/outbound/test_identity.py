"""Signed requests: what is in a signature, and keys that are exchanged."""

from __future__ import annotations

import base64
import doctest
import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from runtime.conf import SettingError, Settings
from runtime.outbound import identity as module
from runtime.outbound.identity import Identity, public_key
from tests.support.asking import ask, peer
from tests.support.http2 import Asked, serving

# As the protocol's description has it.
PEM = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIHsQRVQ+AZX9/Yy1b0Zw+OA+bb7xDxGsAd5kB45jZhoc
-----END PRIVATE KEY-----
"""
PUBLIC = "publickeyv1_ChjENKeMvCtRnqG2mrBK1HmPKufgFUc98K8B3ononQvp"


class Clock:
    now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "identity.pem"
    path.write_bytes(PEM)
    return path


def replace(file: Path, content: bytes) -> None:
    draft = file.with_suffix(".new")
    draft.write_bytes(content)
    draft.replace(file)


def another_key() -> tuple[Ed25519PrivateKey, bytes]:
    key = Ed25519PrivateKey.generate()
    return key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def part(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def known_public() -> Ed25519PublicKey:
    key = load_pem_private_key(PEM, None)
    assert isinstance(key, Ed25519PrivateKey)
    return key.public_key()


def test_examples_work() -> None:
    assert doctest.testmod(module).failed == 0


def test_the_public_key_is_written_as_services_know_it(file: Path) -> None:
    assert Identity(file).public_key == PUBLIC


def test_a_signature_names_the_path_the_key_and_the_time(file: Path) -> None:
    scheme, (name, token) = Identity(file, Clock()).sign("/invoke/Greeter/greet")
    head, claims, signature = token.split(".")

    assert (scheme, name) == (("x-restate-signature-scheme", "v1"), "x-restate-jwt-v1")
    assert json.loads(part(head)) == {"typ": "JWT", "alg": "EdDSA", "kid": PUBLIC}
    assert json.loads(part(claims)) == {
        "aud": "/invoke/Greeter/greet",
        "iat": 1_700_000_000,
        "nbf": 1_700_000_000 - 60,
        "exp": 1_700_000_000 + 60,
    }
    known_public().verify(part(signature), f"{head}.{claims}".encode())
    with pytest.raises(InvalidSignature):
        known_public().verify(part(signature), f"{head}.{claims}x".encode())


def test_a_path_is_signed_again_before_services_find_it_old(file: Path) -> None:
    clock = Clock()
    identity = Identity(file, clock)
    first = identity.sign("/discover")
    clock.now += 5
    assert identity.sign("/discover") is first
    clock.now += 6
    assert identity.sign("/discover") != first


def test_an_exchanged_key_is_used_from_then_on(file: Path) -> None:
    clock = Clock()
    identity = Identity(file, clock)
    before = identity.sign("/discover")
    key, pem = another_key()
    replace(file, pem)
    clock.now += 2

    assert identity.public_key == public_key(key)
    assert identity.sign("/discover") != before


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_key_that_is_spoilt_leaves_the_last_one_in_use(
    file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    identity = Identity(file, clock)
    if content is None:
        file.unlink()
    else:
        replace(file, content)
    clock.now += 2

    assert identity.public_key == PUBLIC
    assert "the last key is used on" in caplog.text


def test_a_key_of_another_kind_is_refused_with_the_setting_and_the_cure(tmp_path: Path) -> None:
    for content in (b"", b"nonsense", known_public().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)):
        file = tmp_path / "key.pem"
        file.write_bytes(content)
        settings = Settings.read({"PERDURE_IDENTITY": str(file)})
        with pytest.raises(SettingError, match="PERDURE_IDENTITY") as caught:
            Identity.of(settings)
        assert "openssl genpkey" in caught.value.hint
    assert Identity.of(Settings.read({})) is None


async def test_every_request_is_signed_for_its_path_without_what_the_service_is_mounted_under(file: Path) -> None:
    seen: list[dict[str, str]] = []

    async def note(asked: Asked) -> None:
        seen.append(asked.headers)
        asked.head()
        asked.end()

    async with serving(note) as server, peer(server.url + "/base", identity=Identity(file)) as it:
        await ask(it, "/invoke/A/b").over()

    (headers,) = seen
    assert headers["x-restate-signature-scheme"] == "v1"
    assert json.loads(part(headers["x-restate-jwt-v1"].split(".")[1]))["aud"] == "/invoke/A/b"
