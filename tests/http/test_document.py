"""The operators' API says what it is: a valid document, a page of it for people, and which methods a path has."""

from __future__ import annotations

import json
import re

from django.contrib.staticfiles import finders
from django.test import AsyncClient
from openapi_spec_validator import OpenAPIV31SpecValidator


async def test_the_document_is_openapi_3_1(our_database: str) -> None:
    document = (await AsyncClient().get("/openapi")).json()

    OpenAPIV31SpecValidator(document).validate()

    assert document["openapi"].startswith("3.1.")


async def test_each_operation_has_a_name_of_its_own_and_says_what_it_does(our_database: str) -> None:
    document = (await AsyncClient().get("/openapi")).json()
    operations = [operation for verbs in document["paths"].values() for operation in verbs.values()]

    names = [operation["operationId"] for operation in operations]

    assert len(names) == len(set(names))
    assert [operation["operationId"] for operation in operations if not operation.get("summary")] == []


async def test_the_document_is_a_page_of_our_own_files(our_database: str) -> None:
    response = await AsyncClient().get("/ui/api")
    page = response.content.decode()

    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    files = re.findall(r'(?:src|href)="/static/([^"]+)"', page)

    assert response.status_code == 200
    assert 'data-document="/openapi"' in page
    assert "ninja/swagger-ui-bundle.js" in files
    assert [file for file in files if finders.find(file) is None] == []
    assert "".join(scripts).strip() == ""
    assert "//" not in " ".join(re.findall(r'(?:src|href)="([^"]+)"', page))
    assert "script-src 'self';" in response.headers["Content-Security-Policy"]
    assert "unsafe" not in response.headers["Content-Security-Policy"]


async def test_a_path_says_in_words_which_methods_it_has(our_database: str) -> None:
    refused = await AsyncClient().post("/health", json.dumps({}), content_type="application/json")
    document = await AsyncClient(enforce_csrf_checks=True).delete("/openapi")
    several = await AsyncClient().put("/services/Greeter")

    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET")
    assert refused.json() == {
        "message": "/health does not take POST, only GET. GET /openapi says what there is.",
        "restate_code": None,
    }
    assert (document.status_code, document.headers["Allow"]) == (405, "GET, HEAD")
    assert (several.status_code, several.headers["Allow"]) == (405, "GET, PATCH")


async def test_a_page_is_asked_wrongly_as_pages_are(our_database: str) -> None:
    assert (await AsyncClient().get("/ui/sign-out")).headers["Content-Type"].startswith("text/html")
