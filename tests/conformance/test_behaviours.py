"""What services do on this runtime, whatever SDK they are written with and however they are hosted and driven."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.ingress import Answer, Ingress, until

pytestmark = pytest.mark.servers

COUNTERS = pytest.mark.parametrize("counter", ["Counter", "LazyCounter"])
BIG = 3_000_000


@pytest.fixture
def key() -> str:
    """Of an object, a place or a step that nobody else has."""
    return uuid.uuid4().hex


# Steps and values ----------------------------------------------------------------------------------------------------


def test_a_step_and_a_sleep(ingress: Ingress) -> None:
    assert ingress.call("Greeter/greet", "Mary") == "Hello Mary"


def test_many_steps(ingress: Ingress) -> None:
    assert ingress.call("Steps/many", 20) == sum(range(20))


def test_a_step_is_taken_once(ingress: Ingress, key: str) -> None:
    assert ingress.call("Steps/once", key) == 2


def test_chance_is_the_same_when_it_is_replayed(ingress: Ingress) -> None:
    assert ingress.call("Steps/chance") is True


def test_nothing_is_returned_as_nothing(ingress: Ingress) -> None:
    answer = ingress.ask("Echo/nothing")
    assert (answer.status, answer.content) == (200, b"")


def test_bytes_travel_as_they_are(ingress: Ingress) -> None:
    kind = {"content-type": "application/octet-stream"}
    answer = ingress.request("POST", "/Echo/reverse", b"\x00\xff\x80abc", kind)
    assert (answer.status, answer.content) == (200, b"cba\x80\xff\x00")
    assert answer.content_type == "application/octet-stream"


def test_large_values_are_journaled_and_returned(ingress: Ingress) -> None:
    assert ingress.call("Echo/big", BIG) == "x" * BIG


def test_large_values_are_taken_and_passed_on(ingress: Ingress) -> None:
    assert ingress.call("Echo/size", "x" * BIG) == BIG
    assert ingress.call("Front/relay", BIG) == BIG


def test_headers_reach_the_handler(ingress: Ingress) -> None:
    assert ingress.call("Echo/tone", **{"x-tone": "soft"}) == "soft"
    assert ingress.call("Front/loudly") == "loud"


def test_hundreds_at_once(ingress: Ingress) -> None:
    names = [str(number) for number in range(100)]
    with ThreadPoolExecutor(32) as pool:
        greetings = list(pool.map(lambda name: ingress.call("Greeter/greet", name), names))
    assert greetings == [f"Hello {name}" for name in names]


# Objects -------------------------------------------------------------------------------------------------------------


@COUNTERS
def test_an_object_keeps_its_values(ingress: Ingress, counter: str, key: str) -> None:
    assert ingress.call(f"{counter}/{key}/get") is None
    assert [ingress.call(f"{counter}/{key}/add", 2) for _ in range(3)] == [2, 4, 6]
    assert ingress.call(f"{counter}/{key}/get") == 6
    assert ingress.call(f"{counter}/{key} of another/get") is None


@COUNTERS
def test_an_object_knows_the_names_of_its_values(ingress: Ingress, counter: str, key: str) -> None:
    ingress.call(f"{counter}/{key}/fill", {"b": 1, "a": 2, "c": 3})
    assert ingress.call(f"{counter}/{key}/keys") == ["a", "b", "c"]
    ingress.call(f"{counter}/{key}/drop", "b")
    assert ingress.call(f"{counter}/{key}/keys") == ["a", "c"]
    assert ingress.call(f"{counter}/{key}/wipe") == ["wiped"]
    assert ingress.call(f"{counter}/{key}/keys") == ["wiped"]


def test_one_at_a_time_changes_an_object(ingress: Ingress, key: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        counts = list(pool.map(lambda _: ingress.call(f"Counter/{key}/add", 1), range(30)))
    assert sorted(counts) == list(range(1, 31))


# Calls ---------------------------------------------------------------------------------------------------------------


def test_a_handler_calls_another(ingress: Ingress) -> None:
    assert ingress.call("Front/call", "Mary") == "I heard: Hello Mary"


def test_calls_within_calls(ingress: Ingress) -> None:
    assert ingress.call("Front/deep", 5) == 5


def test_calls_of_one_object_are_answered_in_their_order(ingress: Ingress, key: str) -> None:
    assert ingress.call("Front/crowd", {"key": key, "times": 10}) == list(range(1, 11))


def test_what_is_sent_happens(ingress: Ingress, key: str) -> None:
    assert ingress.call("Front/send", {"key": key, "amount": 3}).startswith("inv_1")
    assert until(lambda: ingress.call(f"Counter/{key}/get")) == 3


def test_what_is_sent_for_later_happens_later(ingress: Ingress, key: str) -> None:
    ingress.call("Front/send", {"key": key, "amount": 3, "delay": 1500})
    assert ingress.call(f"Counter/{key}/add", 1) == 1
    assert until(lambda: ingress.call(f"Counter/{key}/get") != 1 or None)
    assert ingress.call(f"Counter/{key}/get") == 4


def test_an_idempotency_key_makes_two_calls_one(ingress: Ingress, key: str) -> None:
    assert ingress.call("Front/twice", {"key": key, "token": key}) == [1, 1]
    once = {"idempotency-key": key + " from outside"}
    assert [ingress.call(f"Counter/{key}/add", 1, **once) for _ in range(2)] == [2, 2]


# Failures ------------------------------------------------------------------------------------------------------------


def test_a_terminal_error_is_the_answer(ingress: Ingress) -> None:
    answer = ingress.ask("Failing/terminal")
    assert answer.status == 418
    assert answer.problem["message"] == "no such luck"


@pytest.mark.since(6)  # before, failures have no metadata, and SDKs keep trying
def test_a_terminal_error_may_explain_itself(ingress: Ingress) -> None:
    answer = ingress.ask("Failing/explained")
    assert answer.status == 418
    assert answer.problem["metadata"] == {"colour": "teal"}


def test_any_other_error_is_tried_again(ingress: Ingress, key: str) -> None:
    assert ingress.call("Failing/flaky", {"token": key, "times": 4}) == 4


def test_a_step_that_refuses_is_not_tried_again(ingress: Ingress) -> None:
    assert ingress.call("Failing/refused_step") == "419 the step refuses"


def test_a_step_that_fails_is_tried_again(ingress: Ingress, key: str) -> None:
    assert ingress.call("Failing/flaky_step", {"token": key, "times": 3, "most": 10}) == 3


def test_a_step_is_given_up_when_its_policy_says_so(ingress: Ingress, key: str) -> None:
    assert ingress.call("Failing/flaky_step", {"token": key, "times": 99, "most": 3}) == -3


def test_the_error_of_a_callee_can_be_caught(ingress: Ingress) -> None:
    assert ingress.call("Failing/caught") == "418 no such luck"


def test_what_was_done_before_an_error_is_done(ingress: Ingress, key: str) -> None:
    assert ingress.ask("Failing/kept", key).status == 418
    assert until(lambda: ingress.call(f"Counter/{key}/get")) == 7


# Waiting for others --------------------------------------------------------------------------------------------------


def test_an_awakeable_is_resolved_by_another_handler(ingress: Ingress, key: str) -> None:
    waiting = ingress.send("Waiting/awakeable", key)
    id = ingress.word(key)
    assert id.startswith("sign_1")
    ingress.call("Waiting/resolve", {"id": id, "value": "Mary"})
    assert ingress.outcome(waiting).value == "awoken by Mary"


def test_an_awakeable_is_rejected_by_another_handler(ingress: Ingress, key: str) -> None:
    waiting = ingress.send("Waiting/awakeable", key)
    ingress.call("Waiting/reject", {"id": ingress.word(key), "reason": "nobody is there"})
    assert ingress.outcome(waiting).problem["message"] == "nobody is there"


def test_an_awakeable_is_resolved_from_outside(ingress: Ingress, key: str) -> None:
    waiting = ingress.send("Waiting/awakeable", key)
    path, kind = f"/restate/awakeables/{ingress.word(key)}/resolve", {"content-type": "application/json"}
    assert ingress.request("POST", path, b'"John"', kind).status == 202
    assert ingress.outcome(waiting).value == "awoken by John"


def test_an_awakeable_is_rejected_from_outside(ingress: Ingress, key: str) -> None:
    waiting = ingress.send("Waiting/awakeable", key)
    path = f"/restate/awakeables/{ingress.word(key)}/reject"
    assert ingress.request("POST", path, b"nobody came", {"content-type": "text/plain"}).status == 202
    assert "nobody came" in ingress.outcome(waiting).problem["message"]


def test_signals_come_in_the_order_in_which_they_were_sent(ingress: Ingress, key: str) -> None:
    waiting = ingress.send("Waiting/signals", {"place": key, "count": 3})
    ingress.call("Waiting/signal", {"id": ingress.word(key), "words": ["a", "b", "a"]})
    assert ingress.outcome(waiting).value == ["a", "b", "a"]


def test_a_handler_attaches_to_what_was_sent(ingress: Ingress, key: str) -> None:
    assert ingress.call("Waiting/slow_add", {"key": key}) == 1


def test_a_handler_attaches_to_what_is_over(ingress: Ingress, key: str) -> None:
    sent = ingress.send(f"Counter/{key}/add", 5)
    assert ingress.outcome(sent).value == 5
    assert ingress.call("Waiting/attach", sent) == 5


# Several at once -----------------------------------------------------------------------------------------------------


def test_all_of_several_calls(ingress: Ingress) -> None:
    names = ["Mary", "John", "Ann"]
    assert ingress.call("Combining/all_of", names) == [f"Hello {name}" for name in names]


def test_the_first_of_a_call_and_a_sleep(ingress: Ingress) -> None:
    assert ingress.call("Combining/race", "Mary") == "call: Hello Mary"


def test_the_first_of_two_sleeps(ingress: Ingress) -> None:
    assert ingress.call("Combining/race_of_sleeps") == "short"


def test_the_first_that_succeeds(ingress: Ingress) -> None:
    assert ingress.call("Combining/any_of", "Mary") == "Hello Mary"


def test_all_that_have_ended_one_way_or_the_other(ingress: Ingress) -> None:
    settled = ingress.call("Combining/settled", "Mary")
    assert settled == ["fulfilled Hello Mary", "rejected no such luck", "fulfilled nothing"]


def test_the_first_of_a_signal_and_a_sleep(ingress: Ingress, key: str) -> None:
    waiting = ingress.send("Combining/signal_or_sleep", key)
    ingress.call("Waiting/signal", {"id": ingress.word(key), "words": ["now"]})
    assert ingress.outcome(waiting).value == "word: now"


# Cancelling ----------------------------------------------------------------------------------------------------------


def test_who_is_cancelled_undoes_what_it_did(ingress: Ingress, key: str) -> None:
    sleeping = ingress.send("Cancelling/sleeper", key)
    assert ingress.word(key) == sleeping
    ingress.call("Cancelling/cancel", sleeping)
    assert ingress.outcome(sleeping).status == 409
    assert ingress.call(f"Counter/{key}/get") == -1


def test_a_cancel_reaches_those_who_are_called(ingress: Ingress, key: str) -> None:
    parent = ingress.send("Cancelling/parent", key)
    ingress.word(key)
    ingress.call("Cancelling/cancel", ingress.word(key + " parent"))
    assert ingress.outcome(parent).status == 409
    assert until(lambda: ingress.call(f"Counter/{key}/get")) == -1


# Workflows -----------------------------------------------------------------------------------------------------------


def test_a_workflow_is_run_and_told_by_a_handler(ingress: Ingress, key: str) -> None:
    assert ingress.call("Front/approve", key) == "tea granted"


def test_a_workflow_waits_for_what_its_handlers_tell_it(ingress: Ingress, key: str) -> None:
    begin(ingress, key)
    assert until(lambda: ingress.call(f"Approval/{key}/stage")) == "waiting"
    assert ingress.call(f"Approval/{key}/decision") is None
    ingress.call(f"Approval/{key}/decide", "granted")
    assert result(ingress, key).value == "tea granted"
    assert ingress.call(f"Approval/{key}/decision") == "granted"
    assert ingress.call(f"Approval/{key}/stage") == "decided"


def test_a_workflow_fails_when_what_it_waits_for_is_refused(ingress: Ingress, key: str) -> None:
    begin(ingress, key)
    ingress.call(f"Approval/{key}/refuse", "too late")
    assert result(ingress, key).problem["message"] == "too late"


def test_a_promise_is_given_once(ingress: Ingress, key: str) -> None:
    ingress.call(f"Approval/{key}/decide", "granted")
    assert ingress.ask(f"Approval/{key}/decide", "denied").status == 409
    begin(ingress, key)
    assert result(ingress, key).value == "tea granted"


def test_a_workflow_runs_once(ingress: Ingress, key: str) -> None:
    ingress.call(f"Approval/{key}/decide", "granted")
    assert begin(ingress, key) == begin(ingress, key)
    assert ingress.ask(f"Approval/{key}/run", "coffee").status == 409
    assert result(ingress, key).value == "tea granted"


def begin(ingress: Ingress, key: str) -> str:
    """Let a workflow run; answers its invocation's id."""
    kind = {"content-type": "application/json"}
    answer = ingress.request("POST", f"/Approval/{key}/run/send", b'"tea"', kind)
    assert answer.status in (200, 202), answer
    return str(json.loads(answer.content)["invocationId"])


def result(ingress: Ingress, key: str) -> Answer:
    """How a workflow's run ends; waits for it."""
    return ingress.request("GET", f"/restate/workflow/Approval/{key}/attach")
