"""Every curl of docs/ingress.md is answered as that page promises."""

from __future__ import annotations

import shlex
from pathlib import Path

from perdure.protocol.ids import format_awakeable, parse_id
from runtime.ingress.app import Ingress
from tests.support.asgi import Answer, Caller, started
from tests.support.manifests import registry
from tests.support.operations import FakeOperations

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs/ingress.md").read_text()
CURLS = [line for line in PAGE.splitlines() if line.startswith("curl ")]


async def curl(caller: Caller, line: str) -> Answer:
    """What a curl of the page is answered; its address comes first."""
    _, address, *options = shlex.split(line, comments=True)
    given = list(zip(options[::2], options[1::2], strict=True))
    body = next((value.encode() for option, value in given if option == "-d"), None)
    headers = dict(value.split(": ") for option, value in given if option == "-H")
    headers.setdefault("content-type", "application/x-www-form-urlencoded")
    path = address.removeprefix("localhost:8080")
    return await caller.request("GET" if body is None else "POST", path, body or b"", **headers)


async def test_every_curl_of_the_page_is_answered() -> None:
    operations = FakeOperations(registry())
    async with started(Ingress(lambda: operations)) as caller:
        mary = {"idempotency_key": "order-1"}
        id = (await caller.post("/Greeter/greet", b'"Mary"', **mary)).headers["x-restate-id"]
        await caller.post("/Mailbox/Mary/put", b'"Hi"', **mary)
        ids = {"inv_1…": id, "sign_1…": format_awakeable(parse_id(id), 17)}

        answers = {}
        for line in CURLS:
            for shown, real in ids.items():
                line = line.replace(shown, real)
            answers[line] = (await curl(caller, line)).status

    assert len(answers) > 15
    assert {line: status for line, status in answers.items() if status not in (200, 202)} == {}
