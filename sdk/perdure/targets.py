"""Which invocation is meant, by who attaches to it: by its id, as a workflow's run, or by its idempotency key."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from perdure.errors import UsageError
from perdure.protocol import messages as m
from perdure.protocol.manifest import ServiceType
from perdure.serde import Serde, serde_for
from perdure.service import RUN, Handler


def target_of(invocation: Any, hint: Any, key: str | None, idempotency_key: str | None) -> tuple[m.AttachTarget, Serde]:
    """The invocation, given by its id or its handler, and how its result is read; raises UsageError."""
    if isinstance(invocation, str):
        if key is not None or idempotency_key is not None:
            raise UsageError("An invocation's id needs no key beside it.")
        return m.InvocationTarget(invocation), serde_for(hint)
    if not isinstance(invocation, Handler):
        raise UsageError(f"An invocation's id, or a handler, is wanted here, not {invocation!r}.")
    definition, name = invocation.owner.__perdure__, invocation.function.__qualname__
    if (definition.type is not ServiceType.SERVICE) is not bool(key):
        raise UsageError(f"{name} is {'of a Service, and takes no' if key else 'found by its'} key=.")
    if definition.type is ServiceType.WORKFLOW and invocation.name == RUN:
        if idempotency_key is not None:
            raise UsageError(f"{name} is found by its key= alone: it runs once.")
        return m.WorkflowTarget(definition.name, key or ""), invocation.output
    if not idempotency_key:
        raise UsageError(f"{name} may have been called more than once: say which, by idempotency_key=.")
    return m.IdempotentRequestTarget(definition.name, invocation.name, idempotency_key, key), invocation.output


def path_of(target: m.AttachTarget) -> str:
    """Where the ingress has it.

    >>> path_of(m.WorkflowTarget("Signup", "Mary / John"))
    '/restate/workflow/Signup/Mary%20%2F%20John'
    """
    match target:
        case m.InvocationTarget(id):
            parts = ["invocation", id]
        case m.WorkflowTarget(name, key):
            parts = ["workflow", name, key]
        case m.IdempotentRequestTarget(service, handler, once, None):
            parts = ["invocation", service, handler, once]
        case m.IdempotentRequestTarget(service, handler, once, key):
            parts = ["invocation", service, key or "", handler, once]
    return "/restate/" + "/".join(quote(part, safe="") for part in parts)
