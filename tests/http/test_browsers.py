"""What an answer tells browsers, and by which names we can be asked."""

from __future__ import annotations

import pytest
from django.test import AsyncClient

from runtime.project.asgi import application
from tests.support.asgi import Exchange

pytestmark = pytest.mark.usefixtures("guarded")


@pytest.mark.parametrize("path", ["/health", "/tokens", "/nothing/here", "/ui/sign-in", "/openapi", "/static/none.js",
                                  "/static/dashboard/dashboard.css"])  # fmt: skip
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
async def test_every_answer_tells_browsers_to_load_and_frame_nothing(path: str, host: str) -> None:
    headers = await headers_of(path, host)

    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
    assert headers["referrer-policy"] == "same-origin"


async def headers_of(path: str, host: str) -> dict[str, str]:
    scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", host.encode())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    exchange = Exchange([b""])
    await application(scope, exchange.receive, exchange.send)
    return {name.decode().lower(): value.decode() for name, value in exchange.sent[0]["headers"]}


async def test_another_name_than_ours_is_refused() -> None:
    answer = await AsyncClient().get("/health", headers={"Host": "evil.example"})

    assert answer.status_code == 400
