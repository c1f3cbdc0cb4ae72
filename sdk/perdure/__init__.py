"""Perdure: durable service communication.

Handlers call each other, send each other messages now or later, and keep values per key, and none of it is lost.
"""

from __future__ import annotations

from perdure.context import Context, ObjectContext, SharedContext, WorkflowContext, WorkflowSharedContext
from perdure.endpoint import Endpoint
from perdure.errors import (
    Cancelled,
    DefinitionError,
    JournalMismatch,
    SdkError,
    SerdeError,
    TerminalError,
    TimeoutError,
    UsageError,
)
from perdure.futures import Awakeable, CallFuture, DurableFuture, Race, SendHandle, first, gather
from perdure.promises import DurablePromise
from perdure.retry import Retry
from perdure.service import Service, VirtualObject, Workflow, handler

__all__ = [
    "Awakeable",
    "CallFuture",
    "Cancelled",
    "Context",
    "DefinitionError",
    "DurableFuture",
    "DurablePromise",
    "Endpoint",
    "JournalMismatch",
    "ObjectContext",
    "Race",
    "Retry",
    "SdkError",
    "SendHandle",
    "SerdeError",
    "Service",
    "SharedContext",
    "TerminalError",
    "TimeoutError",
    "UsageError",
    "VirtualObject",
    "Workflow",
    "WorkflowContext",
    "WorkflowSharedContext",
    "first",
    "gather",
    "handler",
]
