"""The operators' API under requests that nobody would think of, made from its own OpenAPI document.

It runs in earnest, on an engine that acts on what is asked: never a 500, and never an answer that is not documented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from runtime.api.app import api
from tests.support.stack import Stack

ANSWERS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
REQUESTS = 40  # per operation

schema = schemathesis.openapi.from_dict(api.get_openapi_schema(path_prefix=""))

Known = Mapping[str, list[str]]
"""What is really there, by the name of the parameter that asks for it."""


@pytest.fixture(scope="module")
def known(system: Stack) -> Known:
    """Invocations in several states: ended, held in a handler, behind a held one, and not due yet."""

    def send(target: str, argument: str, **query: str) -> str:
        url = f"http://127.0.0.1:{system.port}/{target}/send"
        answer = requests.post(url, json=argument, params=query, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["invocationId"])

    system.start()
    system.hold()
    ids = [send("Work/run", f"held {number}") for number in range(8)]
    ids += [send("Ledger/key/add_held", f"queued {number}") for number in range(8)]
    ids += [send("Ledger/key/note_down", "later", delay="1h") for _ in range(8)]
    ids += [send("Ledger/other/note_down", f"line {number}") for number in range(8)]
    listed = requests.get(f"{system.web_url}/workers", headers=system.credentials(), timeout=30)
    engines = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", listed.text)
    return {
        "id": [*ids, *engines],
        "name": ["Work", "Ledger"],
        "service": ["Work", "Ledger"],
        "key": ["key", "other"],
        "queue": ["default"],
    }


@schema.given(draws=st.randoms(use_true_random=False))
@schema.parametrize()
@settings(
    max_examples=REQUESTS,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_documented(case: Any, draws: Any, system: Stack, known: Known) -> None:
    for values in (case.path_parameters, case.query):
        for name in (values or {}).keys() & known.keys():
            if draws.random() < 0.7:
                values[name] = draws.choice(known[name])
    case.call_and_validate(base_url=system.web_url, headers=system.credentials(), checks=ANSWERS)


def test_no_operation_documents_a_500() -> None:
    documented = {
        code for path in schema.raw_schema["paths"].values() for verb in path.values() for code in verb["responses"]
    }
    assert {200, 400, 503} <= {int(code) for code in documented}
    assert 500 not in {int(code) for code in documented}
