"""What a request asks for, by its method, path, query and headers."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.protocol.ids import format_awakeable, format_id, idempotent_id, workflow_id
from runtime.core.registry import UnknownHandler, UnknownService
from runtime.ingress.parsing import (
    INGRESS_PATH,
    LONGEST_PATH,
    MOST_HEADER_BYTES,
    MOST_HEADERS,
    RawHeaders,
    Submit,
    parse,
    parse_target,
    read_reason,
)
from runtime.ingress.paths import (
    Call,
    Describe,
    Destination,
    Find,
    FindByBody,
    Health,
    Paths,
    Reject,
    Resolve,
    Send,
    Verb,
)
from runtime.ingress.refused import Refused
from tests.support.manifests import registry

PATHS = Paths(registry())
ID = bytes(range(16))
INV = format_id(ID)
SIGN = format_awakeable(ID, 17)


def ask(method: str, path: str, headers: RawHeaders | None = None) -> object:
    raw, _, query = path.encode().partition(b"?")
    return parse(method, raw, query, headers or [], PATHS)


def submitted(path: str, headers: RawHeaders | None = None) -> Submit:
    request = ask("POST", path, headers)
    assert isinstance(request, Submit), request
    return request


def refused(method: str, path: str, headers: RawHeaders | None = None) -> Refused:
    request = ask(method, path, headers)
    assert isinstance(request, Refused), request
    return request


# Paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "service", "key", "handler"),
    [
        ("/Greeter/greet", Call, "Greeter", None, "greet"),
        ("/Greeter/greet/send", Send, "Greeter", None, "greet"),
        ("/my.Shop/buy", Call, "my.Shop", None, "buy"),
        ("/Gr%65eter/greet", Call, "Greeter", None, "greet"),
        ("/Mailbox/Mary/put", Call, "Mailbox", "Mary", "put"),
        ("/Mailbox/Mary/put/send", Send, "Mailbox", "Mary", "put"),
        ("/Mailbox/a%2Fb%20c/put", Call, "Mailbox", "a/b c", "put"),
        ("/Mailbox/M%C3%A4ry/put/send", Send, "Mailbox", "Märy", "put"),
        ("/Mailbox/send/put", Call, "Mailbox", "send", "put"),
        ("/Mailbox/a+b/put", Call, "Mailbox", "a+b", "put"),
        ("/Sender/k/send", Call, "Sender", "k", "send"),  # a handler of that name
        ("/Sender/put/send", Call, "Sender", "put", "send"),
        ("/Sender/k/send/send", Send, "Sender", "k", "send"),
        ("/restate/call/Greeter/greet", Call, "Greeter", None, "greet"),
        ("/restate/send/Greeter/greet", Send, "Greeter", None, "greet"),
        ("/restate/call/Mailbox/restate/put", Call, "Mailbox", "restate", "put"),
        ("/restate/send/Mailbox/Mary/put", Send, "Mailbox", "Mary", "put"),
        ("/Signup/me/run", Call, "Signup", "me", "run"),
        ("/Signup/me/run/send", Send, "Signup", "me", "run"),
        ("/Signup/m%2Fe/confirm", Call, "Signup", "m/e", "confirm"),
        ("/restate/send/Signup/me/run", Send, "Signup", "me", "run"),
    ],
)
def test_a_path_leads_to_a_handler(path: str, kind: type, service: str, key: str | None, handler: str) -> None:
    request = submitted(path)
    assert type(request.to) is kind
    assert (request.to.door.handler.service, request.to.key, request.to.door.handler.name) == (service, key, handler)


@given(st.text(min_size=1).filter(lambda key: "\0" not in key))
def test_any_key_may_stand_in_a_path(key: str) -> None:
    encoded = quote(key, safe="")
    assert submitted(f"/Mailbox/{encoded}/put").to.key == key
    assert submitted(f"/Mailbox/{encoded}/put/send").to.key == key
    assert submitted(f"/restate/call/Mailbox/{encoded}/put").to.key == key


@pytest.mark.parametrize(
    ("method", "path", "destination"),
    [
        ("GET", "/restate/health", Health()),
        ("GET", f"/restate/invocation/{INV}/attach", Find(Verb.ATTACH, ID)),
        ("GET", f"/restate/invocation/{INV}/output", Find(Verb.OUTPUT, ID)),
        ("GET", f"/restate/attach/{INV}", Find(Verb.ATTACH, ID)),
        ("GET", f"/restate/output/{INV}", Find(Verb.OUTPUT, ID)),
        ("POST", "/restate/attach", FindByBody(Verb.ATTACH)),
        ("POST", "/restate/output", FindByBody(Verb.OUTPUT)),
        ("POST", "/restate/lookup", FindByBody(Verb.LOOKUP)),
        ("GET", "/restate/openapi/Greeter", Describe(PATHS.registry.service("Greeter"))),
        ("POST", f"/restate/awakeables/{SIGN}/resolve", Resolve(ID, 17)),
        ("POST", f"/restate/awakeables/{SIGN}/reject", Reject(ID, 17)),
        ("POST", f"/restate/a/{SIGN}/resolve", Resolve(ID, 17)),
        ("POST", f"/restate/a/{SIGN}/reject", Reject(ID, 17)),
    ],
)
def test_a_path_of_the_runtime_itself(method: str, path: str, destination: Destination) -> None:
    assert ask(method, path) == destination


def test_an_idempotency_key_names_its_invocation() -> None:
    assert ask("GET", "/restate/invocation/Greeter/greet/order-1/attach") == Find(
        Verb.ATTACH, idempotent_id("Greeter", None, "greet", "order-1"), PATHS.door("Greeter", "greet")
    )
    assert ask("GET", "/restate/invocation/Mailbox/a%2Fb/put/order%201/output") == Find(
        Verb.OUTPUT, idempotent_id("Mailbox", "a/b", "put", "order 1"), PATHS.door("Mailbox", "put")
    )
    assert ask("GET", "/restate/invocation/Gone/greet/order-1/output") == Find(
        Verb.OUTPUT, idempotent_id("Gone", None, "greet", "order-1")
    )


def test_a_key_names_the_run_of_its_workflow() -> None:
    run = PATHS.door("Signup", "run")
    assert ask("GET", "/restate/workflow/Signup/m%2Fe/attach") == Find(Verb.ATTACH, workflow_id("Signup", "m/e"), run)
    assert ask("GET", "/restate/workflow/Signup/me/output") == Find(Verb.OUTPUT, workflow_id("Signup", "me"), run)
    assert ask("GET", "/restate/workflow/Gone/me/output") == Find(Verb.OUTPUT, workflow_id("Gone", "me"))
    assert ask("GET", "/restate/workflow/Greeter/me/output") == Find(Verb.OUTPUT, workflow_id("Greeter", "me"))


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/", 400, "empty"),
        ("POST", "*", 400, "leads nowhere"),
        ("POST", "/Greeter", 400, "leads nowhere"),
        ("POST", "/Greeter/", 400, "empty"),
        ("POST", "/Greeter/greet/", 400, "empty"),
        ("POST", "/Greeter/Mary/greet", 400, "takes no key"),
        ("POST", "/Greeter/greet/send/send", 400, "takes no key"),
        ("POST", "/Mailbox", 400, "leads nowhere"),
        ("POST", "/Mailbox/put", 400, "its key is missing"),
        ("POST", "/Mailbox/put/send", 400, "its key is missing"),
        ("POST", "/Mailbox//put", 400, "empty"),
        ("POST", "/Mailbox/a/b/put", 400, "leads nowhere"),
        ("POST", "/Mailbox/%00/put", 400, "NUL"),
        ("POST", "/Mailbox/%FF/put", 400, "UTF-8"),
        ("POST", "/Mailbox/%ED%A0%80/put", 400, "UTF-8"),  # a lone surrogate
        ("POST", "/Greeter/secret", 400, "private"),
        ("POST", "/Signup/run", 400, "Signup is a workflow: its key is missing"),
        ("POST", "/restate/call", 400, "leads nowhere"),
        ("POST", "/restate/nonsense", 400, "leads nowhere"),
        ("GET", "/restate/invocation/inv_1nonsense/attach", 400, "not the id"),
        ("GET", "/restate/workflow/Signup/attach", 400, "leads nowhere"),
        ("GET", "/restate/workflow/Signup/me/lookup", 400, "leads nowhere"),
        ("POST", "/restate/workflow/Signup/me/attach", 405, "POST"),
        ("POST", "/restate/awakeables/sign_1abc/resolve", 400, "not the id of an awakeable"),
        ("POST", f"/restate/a/{INV}/reject", 400, "not the id of an awakeable"),
        ("POST", f"/restate/a/{SIGN}x/reject", 400, "not the id of an awakeable"),
        ("POST", f"/restate/a/{SIGN}", 400, "leads nowhere"),
        ("POST", f"/restate/a/{SIGN}/cancel", 400, "leads nowhere"),
        ("GET", f"/restate/a/{SIGN}/resolve", 405, "GET"),
        ("POST", "/restate/scope/s/call/Greeter/greet", 501, "Scopes"),
        ("POST", "/Greeter/greet?limit-key=a", 501, "Scopes"),
        ("POST", "/Greeter/greet?delay=5s", 400, "cannot be delayed"),
        ("POST", "/Greeter/greet/send?delya=5s", 400, "'delya'"),
        ("POST", "/Greeter/greet?a=b", 400, "'a'"),
        ("POST", "/Greeter/greet/send?delay=soon", 400, "'soon'"),
        ("POST", "/Greeter/greet/send?delay=", 400, "cannot be understood"),
        ("POST", "/Greeter/greet/send?delay=-5s", 400, "'-5s'"),
        ("POST", f"/{'x' * LONGEST_PATH}/greet", 414, "bytes"),
        ("POST", f"/Greeter/greet?{'x' * LONGEST_PATH}=1", 414, "bytes"),
        ("DELETE", "/Greeter/greet", 405, "DELETE"),
        ("GET", "/Greeter/greet/send", 405, "GET"),
        ("HEAD", "/Greeter/greet", 405, "HEAD"),
        ("HEAD", "/Greeter/greet/send", 405, "HEAD"),
        ("GET", "/restate/attach", 405, "GET"),
        ("POST", "/restate/health", 405, "POST"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(method: str, path: str, status: int, words: str) -> None:
    refusal = refused(method, path)
    assert refusal.status == status
    assert words in str(refusal)


def test_a_wrong_method_is_told_the_right_ones() -> None:
    assert refused("PUT", "/Greeter/greet").headers == ((b"allow", b"POST, GET"),)


def test_a_missing_key_is_told_where_to_stand() -> None:
    assert "/Mailbox/{key}/put" in refused("POST", "/Mailbox/put").hint


def test_unknown_names_are_told_from_refusals_for_they_may_have_come_since() -> None:
    assert isinstance(ask("POST", "/Nobody/greet"), UnknownService)
    assert isinstance(ask("POST", "/Nobody/greet/send"), UnknownService)
    assert isinstance(ask("GET", "/restate/openapi/Nobody"), UnknownService)
    assert isinstance(ask("POST", "/Greeter/gret"), UnknownHandler)
    assert isinstance(ask("POST", "/Mailbox/Mary/putt"), UnknownHandler)


# Headers and query ------------------------------------------------------------------------------------------------


def test_headers_are_passed_on_but_those_of_the_way_and_of_the_sender() -> None:
    request = submitted(
        "/Greeter/greet",
        [
            (b"host", b"localhost"),
            (b"connection", b"keep-alive"),
            (b"transfer-encoding", b"chunked"),
            (b"content-length", b"17"),
            (b"idempotency-key", "schlüssel".encode()),
            (b"idempotency-expires", b"1h"),
            (b"x-restate-ingress-path", b"/from/a/liar"),
            (b"authorization", b"Bearer secret"),
            (b"cookie", b"secret"),
            (b"proxy-authorization", b"secret"),
            (b"forwarded", b"for=10.0.0.1"),
            (b"x-forwarded-for", b"10.0.0.1"),
            (b"content-type", b"application/json"),
            (b"traceparent", b"00-abc"),
            (b"x-umlaut", b"\xfc"),
            (b"traceparent", b"twice"),
        ],
    )
    assert [(header.key, header.value) for header in request.headers] == [
        (INGRESS_PATH, "/Greeter/greet"),
        ("content-type", "application/json"),
        ("traceparent", "00-abc"),
        ("x-umlaut", "ü"),
        ("traceparent", "twice"),
    ]
    assert request.idempotency_key == "schlüssel"
    assert request.content_type == b"application/json"
    assert request.length == 17


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"idempotency-key", b"\xff")], 400),
        ([(b"content-length", b"many")], 400),
        ([(b"content-length", b"-1")], 400),
        ([(b"content-length", b"9" * 5000)], 400),
        ([(b"x-restate-limit-key", b"a")], 501),
        ([(b"x-much", b"x" * MOST_HEADER_BYTES)], 431),
        ([(b"x-many", b"x")] * (MOST_HEADERS + 1), 431),
    ],
)
def test_headers_that_cannot_be_taken_are_refused(headers: RawHeaders, status: int) -> None:
    assert refused("POST", "/Greeter/greet", headers).status == status


def test_a_handler_may_read_path_and_query_as_its_caller_sent_them() -> None:
    (header,) = submitted("/Mailbox/M%C3%A4ry/put/send?delay=1h%2030m").headers
    assert (header.key, header.value) == ("x-restate-ingress-path", "/Mailbox/M%C3%A4ry/put/send?delay=1h%2030m")


def test_a_send_may_be_delayed_in_any_format() -> None:
    assert submitted("/Greeter/greet/send?delay=5000").delay == 5_000
    assert submitted("/Greeter/greet/send?delay=PT60S").delay == 60_000
    assert submitted("/Mailbox/Mary/put/send?delay=1h%2030m").delay == 5_400_000
    assert submitted("/Mailbox/Mary/put/send?delay=1h+30m").delay == 5_400_000
    assert submitted("/Greeter/greet/send").delay == 0


# Targets in a body ------------------------------------------------------------------------------------------------


def test_a_body_names_an_invocation_by_its_id_its_idempotency_key_or_its_workflows_key() -> None:
    by_id = b'{"target": "invocation", "invocationId": "%b"}' % INV.encode()
    once = b'{"target": "idempotentInvocation", "service": "Greeter", "handler": "greet", "idempotencyKey": "order-1"}'
    keyed = b'{"target":"idempotentInvocation","service":"Mailbox","key":"Mary","handler":"put","idempotencyKey":"1"}'
    assert parse_target(Verb.ATTACH, by_id, PATHS) == Find(Verb.ATTACH, ID)
    assert parse_target(Verb.LOOKUP, once, PATHS).id == idempotent_id("Greeter", None, "greet", "order-1")
    run = b'{"target": "workflow", "workflowName": "Signup", "workflowKey": "m/e"}'
    assert parse_target(Verb.OUTPUT, run, PATHS) == Find(
        Verb.OUTPUT, workflow_id("Signup", "m/e"), PATHS.door("Signup", "run")
    )
    assert parse_target(Verb.OUTPUT, keyed, PATHS).id == idempotent_id("Mailbox", "Mary", "put", "1")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b"[" * 100_000, 400),
        (b'{"target": "moon"}', 400),
        (b'{"target": "invocation"}', 400),
        (b'{"target": "invocation", "invocationId": "inv_2"}', 400),
        (b'{"target": "idempotentInvocation", "service": "Greeter"}', 400),
        (b'{"target": "workflow", "workflowName": "Signup"}', 400),
        (b'{"target": "workflow", "workflowName": "Signup", "workflowKey": "me", "scope": "s"}', 501),
        (b'{"target": "invocation", "invocationId": "inv_1", "scope": "s"}', 501),
    ],
)
def test_a_body_that_names_none_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Refused) as refusal:
        parse_target(Verb.ATTACH, body, PATHS)
    assert refusal.value.status == status


@given(st.binary(max_size=200))
def test_any_body_names_an_invocation_or_is_refused(body: bytes) -> None:
    try:
        assert len(parse_target(Verb.ATTACH, body, PATHS).id) == 16
    except Refused as refusal:
        assert refusal.status in (400, 501)


# Awakeables ---------------------------------------------------------------------------------------------------------


def test_a_reason_is_text() -> None:
    assert read_reason("zu spät".encode()) == "zu spät"
    assert read_reason(b"") == ""
    with pytest.raises(Refused) as refusal:
        read_reason(b"\xff")
    assert refusal.value.status == 400


# Anything ---------------------------------------------------------------------------------------------------------

parts = st.sampled_from(
    [b"Greeter", b"greet", b"Mailbox", b"put", b"send", b"restate", b"call", b"attach", b"output", b"invocation",
     b"openapi", b"scope", b"Signup", b"run", b"workflow", b"a", b"awakeables", b"resolve", b"reject", b"", b"%",
     b"%2F", b"%00", b"%FF", b"%C3%A4", b"\xff", INV.encode(), SIGN.encode()]
)  # fmt: skip
raw_paths = st.binary(max_size=50) | st.lists(parts, max_size=8).map(lambda names: b"/" + b"/".join(names))
queries = st.binary(max_size=50) | st.binary(max_size=20).map(lambda text: b"delay=" + text)
header_names = st.sampled_from([b"idempotency-key", b"content-length", b"content-type", b"host"]) | st.binary(
    max_size=20
)


@given(
    st.sampled_from(["GET", "POST", "PUT", "OPTIONS", ""]),
    raw_paths,
    queries,
    st.lists(st.tuples(header_names, st.binary(max_size=30)), max_size=5),
)
def test_any_request_becomes_a_value(method: str, path: bytes, query: bytes, headers: RawHeaders) -> None:
    request = parse(method, path, query, headers, PATHS)
    if isinstance(request, Refused):
        assert 400 <= request.status < 500 or request.status == 501
        assert str(request)
    else:
        assert isinstance(request, Submit | Destination | UnknownService | UnknownHandler)
