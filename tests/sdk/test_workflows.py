"""Workflows as they are defined, and their promises as their handlers see them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    Context,
    DefinitionError,
    Endpoint,
    ObjectContext,
    Service,
    SharedContext,
    TerminalError,
    UsageError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WorkflowSharedContext,
    first,
    handler,
)
from perdure.protocol import messages as m
from perdure.protocol.manifest import HandlerType, ServiceType
from tests.sdk.support import CANCEL, Stage, output, until


class Signup(Workflow, workflow_retention=timedelta(days=2)):
    @handler
    async def run(self, ctx: WorkflowContext, address: str) -> str:
        ctx.set("address", address)
        promise = ctx.promise("confirmed", str)
        race = first(promise.get(), ctx.sleep(timedelta(days=3)))
        try:
            return f"{await race} {ctx.key}"
        except TerminalError as error:
            return f"{error.code} {error.message}"

    @handler
    async def confirm(self, ctx: WorkflowSharedContext, how: str) -> list[Any]:
        promise = ctx.promise("confirmed", str)
        before = await promise.peek()
        try:
            await promise.resolve(how)
        except TerminalError as error:
            return [before, error.code]
        return [before, await ctx.get("address", str)]

    @handler(shared=True)
    async def decline(self, ctx: WorkflowSharedContext) -> None:
        ctx.promise("confirmed").reject("no\ud800", code=403)

    @handler
    async def follow(self, ctx: WorkflowSharedContext, id: str) -> list[Any]:
        here = await ctx.output(Signup.run, key="other")
        return [here, await ctx.attach(Signup.run, key="other"), await ctx.attach(id, int)]

    @handler
    async def unnamed(self, ctx: WorkflowSharedContext) -> None:
        ctx.promise("")

    @handler
    async def too_long(self, ctx: WorkflowSharedContext) -> None:
        ctx.promise("n" * 600).resolve(1)

    @handler
    async def combine(self, ctx: WorkflowSharedContext) -> None:
        await first(ctx.promise("confirmed", str))  # type: ignore[call-overload]

    @handler
    async def meddle(self, ctx: WorkflowSharedContext) -> None:
        ctx.set("address", "")  # type: ignore[attr-defined]


async def begun(handler: str, argument: Any = None, **fields: Any) -> Stage:
    return await Stage(Signup, handler, argument, key="Mary", **fields).begin()


async def replayed(stage: Stage, handler: str) -> None:
    again = await begun(handler, journal=stage.journal[:-1], answer_ids=False)
    assert again.emitted == stage.emitted[-2:], "a replay ends otherwise"


async def test_its_run_waits_for_a_promise_and_a_replay_does_the_same() -> None:
    stage = await begun("run", "m@e.org")
    assert stage.commands[1] == m.GetPromise("confirmed", 1)
    stage.deliver(m.GetPromiseCompletion(1, m.Value(b'"by mail"')))
    await stage.settle()
    assert stage.emitted[-2:] == output("by mail Mary")
    await replayed(stage, "run")


async def test_a_promise_that_is_rejected_raises() -> None:
    stage = await begun("run", "m@e.org")
    stage.deliver(m.GetPromiseCompletion(1, m.Failure(403, "no")))
    await stage.settle()
    assert stage.emitted[-2:] == output("403 no")
    await replayed(stage, "run")


async def test_a_cancellation_reaches_who_waits_for_a_promise() -> None:
    stage = await begun("run", "m@e.org")
    stage.deliver(CANCEL)
    await stage.settle()
    assert stage.emitted[-2:] == output("409 cancelled")


async def test_who_waits_for_a_promise_suspends_until_its_completion() -> None:
    stage = await begun("run", "m@e.org")
    stage.attempt.suspend()
    assert stage.emitted[-1] == m.Suspension(m.Wait((1, 2), (m.CANCEL_SIGNAL,)))
    await stage.drop()


@pytest.mark.parametrize(
    ("peeked", "completed", "seen"),
    [
        (m.VOID, m.VOID, [None, "m@e.org"]),
        (m.Value(b'"earlier"'), m.Failure(409, "promise was already completed"), ["earlier", 409]),
    ],
)
async def test_a_promise_is_looked_at_and_given(
    peeked: m.Void | m.Value, completed: m.Void | m.Failure, seen: list[Any]
) -> None:
    stage = await begun("confirm", "by mail", state_map={"address": b'"m@e.org"'})
    assert stage.commands == [m.PeekPromise("confirmed", 1)]
    stage.deliver(m.PeekPromiseCompletion(1, peeked))
    await stage.settle()
    assert stage.commands[1:] == [m.CompletePromise("confirmed", m.Value(b'"by mail"'), 2)]
    stage.deliver(m.CompletePromiseCompletion(2, completed))
    await stage.settle()
    assert stage.emitted[-2:] == output(seen)
    await replayed(stage, "confirm")


async def test_a_reason_that_is_no_unicode_still_arrives() -> None:
    stage = await begun("decline")
    assert stage.commands[0] == m.CompletePromise("confirmed", m.Failure(403, "no?"), 1)


async def test_handlers_attach_to_a_run_by_its_key_and_to_others_by_their_id() -> None:
    stage = await begun("follow", "inv_1x")
    run = m.WorkflowTarget("Signup", "other")
    answers: list[m.Notification] = [
        m.GetInvocationOutputCompletion(1, m.VOID),
        m.AttachInvocationCompletion(2, m.Value(b'"yes"')),
        m.AttachInvocationCompletion(3, m.Value(b"7")),
    ]
    for answer in answers:
        stage.deliver(answer)
        await stage.settle()
    assert stage.commands[:-1] == [
        m.GetInvocationOutput(run, 1),
        m.AttachInvocation(run, 2),
        m.AttachInvocation(m.InvocationTarget("inv_1x"), 3),
    ]
    assert stage.emitted[-2:] == output([None, "yes", 7])
    await replayed(stage, "follow")


async def test_a_promise_whose_name_is_too_long_is_not_given() -> None:
    stage = await begun("too_long")
    assert stage.commands == [m.Output(m.Failure(413, "The name of a promise has 600 bytes, and may have 512."))]


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        ("unnamed", "A promise's name is a text that is not empty"),
        ("meddle", "ctx.set is for the workflow's run"),
        ("combine", "of a promise its get()"),
    ],
)
async def test_mistakes_of_a_handler_are_said(handler: str, problem: str) -> None:
    stage = await begun(handler)
    assert isinstance(stage.emitted[-1], m.Error)
    assert problem in stage.emitted[-1].message


async def test_only_workflows_have_promises() -> None:
    class Plain(Service):
        @handler
        async def ask(self, ctx: Context) -> None:
            ctx.promise("x")  # type: ignore[attr-defined]

    stage = Stage(Plain, "ask")
    stage.attempt.begin()
    await until(lambda: stage.ended)
    assert isinstance(stage.emitted[-1], m.Error)
    assert "ctx.promise is for a Workflow" in stage.emitted[-1].message


def test_its_manifest_says_that_run_is_the_workflow_and_the_others_are_shared() -> None:
    [service] = Endpoint(Signup).manifest().services
    assert service.ty is ServiceType.WORKFLOW
    kinds = {described.name: described.ty for described in service.handlers}
    assert kinds.pop("run") is HandlerType.WORKFLOW
    assert set(kinds.values()) == {HandlerType.SHARED}
    kept = {described.name: described.workflow_completion_retention for described in service.handlers}
    assert kept.pop("run") == 2 * 24 * 60 * 60 * 1000
    assert set(kept.values()) == {None}


def test_a_workflow_has_a_run() -> None:
    with pytest.raises(DefinitionError, match="has no `run`"):

        class Headless(Workflow):
            @handler
            async def confirm(self, ctx: WorkflowSharedContext) -> None: ...


def test_its_run_is_not_shared() -> None:
    with pytest.raises(DefinitionError, match="it cannot be shared"):

        class Shared(Workflow):
            @handler(shared=True)
            async def run(self, ctx: WorkflowContext) -> None: ...


@pytest.mark.parametrize("kind", [Service, VirtualObject])
def test_only_workflows_are_kept_as_such(kind: type[Service]) -> None:
    with pytest.raises(DefinitionError, match="workflow_retention is for a Workflow"):

        class Kept(kind, workflow_retention=timedelta(days=1)):  # type: ignore[misc, valid-type, call-arg]
            @handler
            async def run(self, ctx: Context) -> None: ...


def test_how_long_it_is_kept_is_said_on_its_class() -> None:
    with pytest.raises(DefinitionError, match="say it on the workflow's class"):
        handler(workflow_retention=timedelta(days=1))  # type: ignore[call-overload]


def test_its_other_handlers_get_a_context_that_reads_only() -> None:
    class Greedy(Workflow):
        @handler
        async def run(self, ctx: WorkflowContext) -> None: ...

        @handler
        async def confirm(self, ctx: WorkflowContext) -> None: ...

    with pytest.raises(DefinitionError, match="gets a WorkflowSharedContext, not WorkflowContext"):
        Endpoint(Greedy)


def test_its_handlers_may_be_annotated_with_less() -> None:
    class Modest(Workflow):
        @handler
        async def run(self, ctx: ObjectContext) -> None: ...

        @handler
        async def look(self, ctx: SharedContext) -> None: ...

    assert Endpoint(Modest).find("Modest", "run").context is WorkflowContext
    assert Endpoint(Modest).find("Modest", "look").context is WorkflowSharedContext


async def test_a_workflow_is_called_as_one() -> None:
    problems: list[str] = []

    class Caller(Service):
        @handler
        async def call(self, ctx: Context) -> None:
            for attempt in (
                lambda: ctx.object_client(Signup, "Mary"),  # type: ignore[type-var]
                lambda: ctx.workflow_client(Caller, "Mary"),  # type: ignore[type-var]
                lambda: ctx.workflow_send_client(Signup, ""),
            ):
                try:
                    attempt()
                except UsageError as error:
                    problems.append(str(error))
            ctx.workflow_send_client(Signup, "Mary").run("m@e.org")

    stage = await Stage(Caller, "call").begin()
    assert [problem.partition(",")[0] for problem in problems[:2]] == ["a VirtualObject", "a Workflow"]
    assert "not empty" in problems[2]
    [sent, _] = stage.commands
    assert isinstance(sent, m.OneWayCall)
    assert (sent.service_name, sent.handler_name, sent.key) == ("Signup", "run", "Mary")
