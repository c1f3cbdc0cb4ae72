"""A caller who knows the address of an ingress, and nothing else of the runtime behind it."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")

WITHIN = 30.0  # seconds, for what takes milliseconds
NOTHING = object()


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes
    content_type: str | None

    @property
    def value(self) -> Any:
        assert self.status == 200, f"{self.status} {self.content[:500]!r}"
        return json.loads(self.content) if self.content else None

    @property
    def problem(self) -> dict[str, Any]:
        assert self.status >= 400, f"{self.status} {self.content[:500]!r}"
        return dict(json.loads(self.content))


class Ingress:
    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, target: str, argument: Any = NOTHING, **headers: str) -> Answer:
        """Call `Service/handler` or `Object/key/handler` with a value, and await the answer."""
        if argument is NOTHING:
            return self.request("POST", f"/{quote(target)}", None, headers)
        headers |= {"content-type": "application/json"}
        return self.request("POST", f"/{quote(target)}", json.dumps(argument).encode(), headers)

    def call(self, target: str, argument: Any = NOTHING, **headers: str) -> Any:
        """As `ask`: what the handler returns."""
        return self.ask(target, argument, **headers).value

    def send(self, target: str, argument: Any = NOTHING, *, once: str | None = None) -> str:
        """Let it happen; answers the invocation's id. By its idempotency key the result is kept."""
        headers = {"idempotency-key": once or uuid.uuid4().hex}
        if argument is not NOTHING:
            headers["content-type"] = "application/json"
        body = None if argument is NOTHING else json.dumps(argument).encode()
        answer = self.request("POST", f"/{quote(target)}/send", body, headers)
        assert answer.status == 202, f"{answer.status} {answer.content[:500]!r}"
        return str(json.loads(answer.content)["invocationId"])

    def outcome(self, id: str) -> Answer:
        """How an invocation ends; waits for it."""
        return self.request("GET", f"/restate/invocation/{id}/attach")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.read(), response.headers.get("content-type"))
        finally:
            connection.close()

    def word(self, place: str) -> str:
        """What a handler has left at a place of the board; waits for it."""
        word: str = until(lambda: self.call(f"Board/{place}/read"))
        return word


def until(look: Callable[[], T | None]) -> T:
    """What is seen, as soon as there is something."""
    deadline = time.monotonic() + WITHIN
    while not (seen := look()):
        assert time.monotonic() < deadline, f"nothing was seen within {WITHIN:g} s"
        time.sleep(0.01)
    return seen
