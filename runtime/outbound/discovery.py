"""Discovery: from a URL to what the code behind it says it can do.

HTTP/2 is tried first and HTTP/1.1 where that does not work; what worked is used from then on. What is wrong is said in
words: it is the operator who reads them, with a terminal at hand and the service in front of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping

from perdure.errors import ProtocolError
from perdure.protocol.manifest import HandlerType, Manifest, ServiceManifest, ServiceType
from runtime.core.deployments import NEWEST_PROTOCOL, OLDEST_PROTOCOL, HttpVersion, Reached
from runtime.discovery import NUL, Discovered
from runtime.outbound.faults import BrokenProtocol, OutboundError, Silent, WrongProtocol
from runtime.outbound.fetch import Answer, fetch
from runtime.outbound.peer import Peer

MANIFESTS = (5, 4, 3, 2)
"""Versions of the manifest that are understood, the newest first."""
TYPE = "application/vnd.restate.endpointmanifest.v{}+json"
ACCEPT = ", ".join(TYPE.format(version) for version in MANIFESTS)
LARGEST = 4 * 2**20
"""Bytes of a manifest."""
WITHIN = 10.0  # seconds that an answer may take
PATIENCE = 3.0
"""Seconds for which a server that is just starting is asked again."""
FIRST_PAUSE = 0.1
AWAKE_WITHIN = 3.0
PASSING = frozenset((408, 429, 500, 502, 503, 504))
SDK = re.compile(r"[A-Za-z0-9 ._/+()-]{1,100}")


class NoDeployment(OutboundError):
    """Something answers at this URL, but not as a deployment does."""

    code = "no_deployment"
    is_passing = False


class NothingInCommon(NoDeployment):
    """The deployment and this runtime have no version of the invocation protocol in common."""

    code = "nothing_in_common"
    hint = "Another version of its SDK, or of Perdure, is needed."


class Asleep(NoDeployment):
    """The deployment does not answer invocations."""

    code = "asleep"
    hint = "The TypeScript SDK needs Node 22 or newer: on an older one its log has `withResolvers is not a function`."


class BadManifest(NoDeployment):
    """What the deployment says of itself makes no sense."""

    code = "bad_manifest"
    hint = "It is written by the SDK that the service is built with: which version is that?"


Ask = Callable[[HttpVersion], Peer]


async def discover_url(
    ask: Ask,
    *,
    http: HttpVersion | None = None,
    headers: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    newest: int = NEWEST_PROTOCOL,
    is_signed: bool = False,
    patience: float = PATIENCE,
) -> Discovered:
    """What is behind a URL, as it can be registered; raises OutboundError in its kinds.

    `ask` makes the peer; `headers` are those that it sends with everything. `http`: which HTTP to speak, and no other.
    """
    tries = [http] if http is not None else [HttpVersion.HTTP_2, HttpVersion.HTTP_1_1]
    for spoken in tries:
        peer = ask(spoken)
        url = peer.address.url
        try:
            answer = await _ask_patiently(peer, patience)
            manifest = read_manifest(url, answer, is_signed=is_signed)
            reached = Reached(spoken, agree(url, manifest, newest), _sdk(answer), headers, metadata)
            await _check_awake(peer, manifest, reached)
        except (WrongProtocol, BrokenProtocol, Silent):
            if spoken is tries[-1]:
                raise
            continue
        finally:
            await peer.close()
        stored = manifest.to_json()
        return Discovered(deployment_id(url, stored), url, stored, reached)
    raise AssertionError("there is a last try")


async def _check_awake(peer: Peer, manifest: Manifest, reached: Reached) -> None:
    """Raises Asleep for a TypeScript SDK on a Node that is too old: it tells what it can do, and then never answers.

    Asked for an invocation that has not even a beginning, one that is well refuses at once, and runs nothing.
    """
    if not (reached.sdk or "").startswith("restate-sdk-typescript/"):
        return
    service = next((one for one in manifest.services if one.handlers), None)
    if service is None:
        return
    path = f"/invoke/{service.name}/{service.handlers[0].name}"
    kind = [("content-type", f"application/vnd.restate.invocation.v{reached.protocol_version}")]
    try:
        await fetch(peer, path, kind, within=AWAKE_WITHIN, most=LARGEST, method="POST")
    except Silent as error:
        raise Asleep(f"{peer.address.url} tells what it can do, and does not answer when it is invoked.") from error
    except OutboundError:
        return  # it says no in another way


def deployment_id(url: str, manifest: bytes) -> str:
    """The name of what was found behind a URL: the same again has the same name."""
    digest = hashlib.sha256(b"%b\0%b" % (url.encode(), manifest)).hexdigest()
    return f"dp_{digest[:16]}"


def agree(url: str, manifest: Manifest, newest: int = NEWEST_PROTOCOL) -> int:
    """The version of the invocation protocol in which it is driven; raises NothingInCommon."""
    version = min(manifest.max_protocol_version, newest)
    if version < max(manifest.min_protocol_version, OLDEST_PROTOCOL):
        theirs = f"{manifest.min_protocol_version} to {manifest.max_protocol_version}"
        ours = f"{OLDEST_PROTOCOL} to {newest}"
        raise NothingInCommon(f"{url} speaks versions {theirs} of the invocation protocol, and {ours} would do.")
    return version


def read_manifest(url: str, answer: Answer, *, is_signed: bool = False) -> Manifest:
    """What an answer to `/discover` says; raises NoDeployment in its kinds."""
    if answer.status != 200:
        raise _refused(url, answer, is_signed=is_signed)
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    known = {TYPE.format(version) for version in MANIFESTS}
    if kind not in known:
        raise _foreign(url, kind)
    if NUL in answer.body:
        raise BadManifest(f"The manifest of {url} has a NUL character, which cannot be stored.")
    try:
        manifest = Manifest.from_json(answer.body)
        manifest.to_json().decode()
    except (ProtocolError, UnicodeError) as error:
        raise BadManifest(f"The manifest of {url} cannot be understood: {str(error)[:300]}") from error
    _check(url, manifest)
    return manifest


async def _ask_patiently(peer: Peer, patience: float) -> Answer:
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + patience, FIRST_PAUSE
    while True:
        try:
            answer = await fetch(peer, "/discover", [("accept", ACCEPT)], within=WITHIN, most=LARGEST)
            if answer.status not in PASSING or loop.time() + pause > until:
                return answer
        except OutboundError as error:
            if not error.is_passing or loop.time() + pause > until:
                raise
        await asyncio.sleep(pause)
        pause *= 2


def _refused(url: str, answer: Answer, *, is_signed: bool) -> NoDeployment:
    """What a status means. The body is not repeated: it may be anybody's."""
    status = answer.status
    if 300 <= status < 400:
        words, hint = "leads to somewhere else, and nobody is followed", "Register the URL that it leads to."
    elif status in (401, 403):
        words = "does not accept who asks"
        hint = (
            "Does the service know the public key that `./dev manage identity` shows?"
            if is_signed
            else "If it checks signatures, set PERDURE_IDENTITY; if it wants a token, add it to additional_headers."
        )
    elif status == 404:
        words = "has nothing at /discover"
        hint = "Is the service mounted under a path? That belongs to the URL. Perdure and Restate are no deployments."
    elif status == 415:
        words = "understands none of the manifest's versions 2 to 5"
        hint = "Its SDK is too old, or too new: versions from 2024 on work."
    elif status in PASSING:
        words, hint = f"answers /discover with status {status}", "The log of the service says why."
    else:
        words, hint = f"answers /discover with status {status}", "Is that the port of the service?"
    return NoDeployment(f"{url} {words}.", hint=hint)


def _foreign(url: str, kind: str) -> NoDeployment:
    """Of 200 and another content type than a manifest has."""
    version = re.fullmatch(r"application/vnd\.restate\.endpointmanifest\.v([0-9]{1,3})\+json", kind)
    if version:
        return NoDeployment(
            f"{url} answers with version {version[1]} of the manifest, and 2 to 5 are understood.",
            hint="Another version of its SDK, or of Perdure, is needed.",
        )
    if "html" in kind:
        return NoDeployment(f"{url} answers with a page for people.", hint="Is that the port of the service?")
    return NoDeployment(
        f"{url} answers /discover, but not with a manifest.",
        hint="Is that the port of the service, and is it built with an SDK of Restate or Perdure?",
    )


def _check(url: str, manifest: Manifest) -> None:
    """Raises BadManifest for what the schema cannot say."""
    if not manifest.services:
        raise BadManifest(f"{url} has no services.", hint="Bind some to its endpoint.")
    if double := _twice([service.name for service in manifest.services]):
        raise BadManifest(f"{url} has two services of the name {double!r}.", hint="Give one of them another name.")
    for service in manifest.services:
        if double := _twice([handler.name for handler in service.handlers]):
            raise BadManifest(f"The service {service.name!r} has two handlers of the name {double!r}.")
        for handler in service.handlers:
            if handler.ty not in ALLOWED[service.ty]:
                odd = f"{service.name}/{handler.name} is a {_word(handler.ty)} handler of a {_kind(service)}"
                raise BadManifest(f"{odd}, which has none.")


ALLOWED: Mapping[ServiceType, frozenset[HandlerType | None]] = {
    ServiceType.SERVICE: frozenset((None, HandlerType.SHARED)),
    ServiceType.VIRTUAL_OBJECT: frozenset((None, HandlerType.EXCLUSIVE, HandlerType.SHARED)),
    ServiceType.WORKFLOW: frozenset((None, HandlerType.WORKFLOW, HandlerType.SHARED)),
}


def _twice(names: list[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None


def _word(ty: HandlerType | None) -> str:
    return "plain" if ty is None else ty.value.lower()


def _kind(service: ServiceManifest) -> str:
    return service.ty.value.lower().replace("_", " ")


def _sdk(answer: Answer) -> str | None:
    """What the SDK calls itself."""
    said = answer.headers.get("x-restate-server", "")
    return said if SDK.fullmatch(said) else None
