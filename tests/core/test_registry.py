"""Reading manifests: what is not said has a default, what a handler says wins over its service."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import Context, Endpoint, ObjectContext, Retry, Service, VirtualObject, handler
from runtime.core.delays import LONGEST
from runtime.core.invocation import Mode
from runtime.core.registry import (
    ANY_INPUT,
    DAY,
    DEFAULT_QUEUE,
    JSON_OUTPUT,
    HandlerInfo,
    Registry,
    UnknownHandler,
    UnknownService,
    read_service,
)
from runtime.core.retry import OnMaxAttempts, RetryPolicy


def read_handler(options: dict[str, Any], service: dict[str, Any] | None = None) -> HandlerInfo:
    manifest = {"name": "Greeter", "ty": "SERVICE", "handlers": [{"name": "greet", **options}], **(service or {})}
    return read_service(manifest, "dp_1", 1).handlers["greet"]


def test_a_manifest_that_says_nothing_means_the_defaults() -> None:
    assert read_handler({}) == HandlerInfo("Greeter", "greet", Mode.SERVICE, "dp_1")
    assert read_handler({}).retry == RetryPolicy()
    assert (read_handler({}).input, read_handler({}).output) == (ANY_INPUT, JSON_OUTPUT)


@pytest.mark.parametrize(
    ("type", "handler_type", "mode"),
    [
        ("SERVICE", None, Mode.SERVICE),
        ("VIRTUAL_OBJECT", None, Mode.EXCLUSIVE),
        ("VIRTUAL_OBJECT", "EXCLUSIVE", Mode.EXCLUSIVE),
        ("VIRTUAL_OBJECT", "SHARED", Mode.SHARED),
        ("WORKFLOW", "WORKFLOW", Mode.EXCLUSIVE),
        ("WORKFLOW", "SHARED", Mode.SHARED),
    ],
)
def test_the_mode_follows_from_both_types(type: str, handler_type: str | None, mode: Mode) -> None:
    info = read_handler({"ty": handler_type}, {"ty": type})
    assert info.mode is mode
    assert info.is_keyed == (mode is not Mode.SERVICE)


def test_a_handler_wins_over_its_service() -> None:
    service = {"journalRetention": 2_000, "idempotencyRetention": 3_000, "ingressPrivate": True}
    assert read_handler({}, service).retention == 2
    assert not read_handler({}, service).is_public
    info = read_handler({"journalRetention": 5_000, "ingressPrivate": False}, service)
    assert (info.retention, info.idempotency_retention, info.is_public) == (5, 3, True)


def test_a_workflows_run_is_kept_wholly_and_as_long_as_its_key_answers() -> None:
    workflow = {"ty": "WORKFLOW", "journalRetention": 9_000, "idempotencyRetention": 8_000}
    run = read_handler({"workflowCompletionRetention": 7_000}, workflow)
    assert (run.runs_once, run.is_workflow, run.retention, run.idempotency_retention) == (True, True, 7, 7)
    assert read_handler({}, workflow).retention == DAY
    beside = read_handler({"ty": "SHARED", "workflowCompletionRetention": 7_000}, workflow)
    assert (beside.runs_once, beside.is_workflow, beside.retention, beside.idempotency_retention) == (False, True, 9, 8)


OPTIONS: dict[str, tuple[str, list[Any]]] = {
    "journalRetention": ("retention", [2_000, 5_000]),
    "idempotencyRetention": ("idempotency_retention", [2_000, 5_000]),
    "ingressPrivate": ("is_public", [True, False]),
    "retryPolicyInitialInterval": ("retry", [0, 7]),
    "retryPolicyExponentiationFactor": ("retry", [1.0, 3.0]),
    "retryPolicyMaxInterval": ("retry", [0, 7]),
    "retryPolicyMaxAttempts": ("retry", [1, 7]),
    "retryPolicyOnMaxAttempts": ("retry", ["PAUSE", "KILL"]),
}
METADATA: dict[str, tuple[str, list[Any]]] = {
    "dev.perdure.queue": ("queue", ["slow", "fast"]),
    "dev.perdure.speculate": ("speculate", ["true", "false"]),
    "dev.perdure.validate": ("validate", ["true", "false"]),
}


def said(choices: dict[str, tuple[str, list[Any]]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these options, each with one of its values."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, (_, values) in choices.items()})


@given(said(OPTIONS), said(METADATA), said(OPTIONS), said(METADATA))
def test_each_option_is_the_handlers_or_else_the_services_or_else_the_default(
    service: dict[str, Any], tags: dict[str, Any], handler: dict[str, Any], own_tags: dict[str, Any]
) -> None:
    info = read_handler({**handler, "metadata": own_tags}, {**service, "metadata": tags})
    meant = read_handler({**service, **handler, "metadata": {**tags, **own_tags}})
    assert info == meant


@pytest.mark.parametrize(("option", "field", "values"), [(name, *rest) for name, rest in OPTIONS.items()])
def test_every_option_makes_a_difference(option: str, field: str, values: list[Any]) -> None:
    one, other = (getattr(read_handler({option: value}), field) for value in values)
    assert one != other


def test_what_operators_set_goes_before_what_service_and_handler_say() -> None:
    service = {
        "name": "Greeter",
        "ty": "SERVICE",
        "journalRetention": 1_000,
        "handlers": [{"name": "greet", "journalRetention": 2_000, "metadata": {"dev.perdure.queue": "slow"}}],
    }

    handler = read_service(service, "dp_1", 1, {"journalRetention": 3_000, "dev.perdure.queue": "fast"}).handlers[
        "greet"
    ]

    assert (handler.retention, handler.queue) == (3, "fast")


def test_what_a_handler_says_of_speculation_leaves_its_services_queue() -> None:
    service = {"metadata": {"dev.perdure.queue": "slow"}}
    info = read_handler({"metadata": {"dev.perdure.speculate": "false"}}, service)
    assert (info.queue, info.speculate) == ("slow", False)


def test_an_endless_retention_is_cut_to_what_the_calendar_holds() -> None:
    assert read_handler({"journalRetention": 10**18}).retention == LONGEST
    assert read_handler({}).retention == DAY


def test_what_shall_never_end_is_cut_likewise() -> None:
    never = 2**63 - 1
    info = read_handler({"abortTimeout": never, "inactivityTimeout": never, "retryPolicyMaxInterval": never})
    assert (info.abort_ms, info.inactivity_ms, info.retry.max_ms) == (LONGEST * 1000,) * 3
    assert read_handler({}).abort_ms is None


def test_the_queue_and_the_switches_are_metadata() -> None:
    metadata = {"dev.perdure.queue": "slow", "dev.perdure.speculate": "false", "dev.perdure.validate": "false"}
    info = read_handler({"metadata": metadata})
    assert (info.queue, info.speculate, info.validate) == ("slow", False, False)
    assert read_handler({}).queue == DEFAULT_QUEUE


def test_a_retry_policy_is_read_word_by_word() -> None:
    info = read_handler(
        {
            "retryPolicyInitialInterval": 10,
            "retryPolicyExponentiationFactor": 3.0,
            "retryPolicyMaxInterval": 100,
            "retryPolicyMaxAttempts": 4,
            "retryPolicyOnMaxAttempts": "KILL",
        }
    )
    assert info.retry == RetryPolicy(10, 3.0, 100, 4, OnMaxAttempts.KILL)


def test_an_interval_of_nothing_is_not_the_default() -> None:
    policy = read_handler({"retryPolicyInitialInterval": 0, "retryPolicyMaxInterval": 0}).retry
    assert policy.delay_ms(1) == 0


def test_what_an_endpoint_says_is_what_is_read() -> None:
    class Counter(VirtualObject):
        @handler(retry=Retry(initial=timedelta(milliseconds=20), max_attempts=3, on_max_attempts="kill"))
        async def add(self, ctx: ObjectContext, number: int) -> int:
            return number

        @handler(shared=True)
        async def value(self, ctx: ObjectContext) -> int:
            return 0

    class Greeter(Service, queue="slow", journal_retention=timedelta(hours=1)):
        """Greets."""

        @handler(private=True, speculate=False)
        async def greet(self, ctx: Context, name: str) -> str:
            """Says hello."""
            return name

    manifest = msgspec.json.decode(Endpoint(Counter, Greeter).manifest().to_json())
    registry = Registry(read_service(entry, "dp_1", 1) for entry in manifest["services"])
    add = registry.resolve("Counter", "add")
    assert (add.mode, add.retry.initial_ms, add.retry.max_attempts) == (Mode.EXCLUSIVE, 20, 3)
    assert add.retry.on_max_attempts is OnMaxAttempts.KILL
    assert registry.resolve("Counter", "value").mode is Mode.SHARED
    greet = registry.resolve("Greeter", "greet")
    assert (greet.is_public, greet.speculate, greet.queue, greet.retention) == (False, False, "slow", 3_600)
    assert (registry.service("Greeter").documentation, greet.documentation) == ("Greets.", "Says hello.")
    assert (registry.service("Counter").is_keyed, registry.service("Greeter").is_keyed) == (True, False)


def test_what_is_not_there_is_said_by_name() -> None:
    registry = Registry([read_service({"name": "Greeter", "ty": "SERVICE", "handlers": [{"name": "greet"}]}, "dp", 1)])
    with pytest.raises(UnknownService, match="'Greter'"):
        registry.resolve("Greter", "greet")
    with pytest.raises(UnknownHandler, match=r"'Greeter'.*'great'"):
        registry.resolve("Greeter", "great")
