"""Deployments behind a URL that only ever say what they can do; as the SDKs of Restate do, or otherwise."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.http2 import Asked, Server, serving

MANIFEST_TYPE = "application/vnd.restate.endpointmanifest.v4+json"

# Measured: what these releases answer, with one handler for each interesting shape.
TYPESCRIPT: dict[str, Any] = {
    "minProtocolVersion": 5,
    "maxProtocolVersion": 7,
    "services": [
        {
            "name": "Greeter",
            "ty": "SERVICE",
            "handlers": [
                {
                    "name": "greet",
                    "input": {"required": False, "contentType": "application/json"},
                    "output": {"setContentTypeIfEmpty": False, "contentType": "application/json"},
                    "journalRetention": 86400000, "idempotencyRetention": 3600000, "inactivityTimeout": 30000,
                    "abortTimeout": 120000, "ingressPrivate": False, "retryPolicyExponentiationFactor": 2,
                    "retryPolicyInitialInterval": 100, "retryPolicyMaxInterval": 1000, "retryPolicyMaxAttempts": 5,
                    "retryPolicyOnMaxAttempts": "PAUSE", "documentation": "greets", "metadata": {"a": "b"},
                },
            ],
            "documentation": "tiny service",
            "metadata": {"team": "core"},
        },
        {
            "name": "Cnt",
            "ty": "VIRTUAL_OBJECT",
            "handlers": [{"name": "add", "ty": "EXCLUSIVE"}, {"name": "peek", "ty": "SHARED", "enableLazyState": True}],
        },
        {
            "name": "Wf",
            "ty": "WORKFLOW",
            "handlers": [
                {"name": "run", "ty": "WORKFLOW", "workflowCompletionRetention": 259200000},
                {"name": "sig", "ty": "SHARED"},
            ],
        },
    ],
    "protocolMode": "BIDI_STREAM",
}  # fmt: skip
PYTHON: dict[str, Any] = {
    "protocolMode": "BIDI_STREAM",
    "minProtocolVersion": 5,
    "maxProtocolVersion": 7,
    "services": [
        {
            "name": "Greeter",
            "ty": "SERVICE",
            "handlers": [
                {
                    "name": "greet",
                    "input": {"required": False, "contentType": "application/json", "jsonSchema": {"type": "string"}},
                    "output": {"contentType": "application/json", "setContentTypeIfEmpty": False, "jsonSchema": True},
                    "retryPolicyExponentiationFactor": 2.0, "retryPolicyOnMaxAttempts": "KILL",
                },
                {"name": "sleepcancel", "input": {}, "output": {"setContentTypeIfEmpty": False}},
            ],
            "inactivityTimeout": 30000,
        },
    ],
}  # fmt: skip


def one_service(name: str = "Greeter", ty: str = "SERVICE", *handlers: str, **said: Any) -> dict[str, Any]:
    """A manifest of one service."""
    offered = [{"name": handler} for handler in handlers or ("greet",)]
    service = {"name": name, "ty": ty, "handlers": offered}
    return {
        "protocolMode": "BIDI_STREAM", "minProtocolVersion": 5, "maxProtocolVersion": 7, "services": [service], **said
    }  # fmt: skip


class Deployed:
    """A deployment, and what it was asked."""

    def __init__(self) -> None:
        self.manifest: Any = PYTHON
        self.kind = MANIFEST_TYPE
        self.status = 200
        self.sdk = "restate-sdk-python/1.3.0"
        self.is_awake = True
        """Whether it answers invocations: with an error that nobody looks at."""
        self.asked: list[dict[str, str]] = []
        self.server: Server

    @property
    def url(self) -> str:
        return self.server.url

    async def answer(self, asked: Asked) -> None:
        self.asked.append(asked.headers)
        await asked.body()
        if asked.headers[":method"] == "POST":
            asked.head(content_type=asked.headers["content-type"])
            if self.is_awake:
                asked.end()
            return
        asked.head(self.status, content_type=self.kind, x_restate_server=self.sdk)
        said = self.manifest if isinstance(self.manifest, bytes) else json.dumps(self.manifest).encode()
        await asked.say(said)
        asked.end()


@asynccontextmanager
async def deployed() -> AsyncIterator[Deployed]:
    """A deployment over HTTP/2, until it is told otherwise that of a Python SDK."""
    one = Deployed()
    async with serving(one.answer) as server:
        one.server = server
        yield one
