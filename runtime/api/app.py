"""The operators' API: one router per resource, and what all of them answer when something goes wrong."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import DataError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation

from perdure.errors import InvalidInvocationId
from runtime import __version__
from runtime.accounts.door import NotAllowed, NotSignedIn
from runtime.accounts.faults import AccountFault
from runtime.api import (
    bulk,
    deployments,
    house,
    invocations,
    keys,
    metrics,
    objects,
    query,
    scheduled,
    services,
    steering,
    trust,
    workers,
)
from runtime.api.guard import admin
from runtime.api.parameters import UnknownParameter
from runtime.api.problems import Problem, misfit
from runtime.bulk import TooManyMeant
from runtime.conf import SettingError
from runtime.core.delays import BadDelay
from runtime.core.lifecycle import CommandRefused, TooLarge
from runtime.core.options import BadOption
from runtime.core.registry import UnknownHandler, UnknownService
from runtime.discovery import LocationError
from runtime.errors import DatabaseError, Disconnected, Overloaded, RuntimeFault
from runtime.operations import UnknownInvocation
from runtime.outbound import OutboundError
from runtime.outbound.faults import AddressRefused, BadAddress
from runtime.reading.asking import TookTooLong
from runtime.reading.cursors import BadCursor
from runtime.registering import BadHeader, NotListed
from runtime.rescheduling import TooMany
from runtime.store.deployments import DeploymentNeeded, RegistrationRefused, UnknownDeployment
from runtime.store.ingress_keys import LastKey, UnknownKey
from runtime.store.query import QueryNotSetUp, QueryRefused


class OperatorsApi(NinjaAPI):
    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        """With what the guard answers, for every operation that it guards."""
        document = super().get_openapi_schema(**options)
        problem = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        for operations in document["paths"].values():
            for operation in operations.values():
                if operation.get("security"):
                    operation["responses"][401] = {"description": "Not signed in", **problem}
                    operation["responses"][403] = {"description": "Not allowed", **problem}
        return document

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """What clients made from the document call it: our function's name, without where it stands."""
        return operation.view_func.__name__


api = OperatorsApi(
    title="Perdure: operators' API",
    version=__version__,
    description="See and steer what runs; callers use the ingress. `Authorization: Bearer TOKEN` says who asks.\n\n"
    "People read this, and try it out, at `/ui/api`.",
    openapi_url="/openapi",
    docs_url=None,  # the page for people is the dashboard's
    docs_decorator=lambda document: csrf_exempt(require_safe(document)),
    urls_namespace="api",
    auth=admin,  # of an operation that does not say who may
)
RESOURCES = (
    house,
    trust,
    metrics,
    deployments,
    services,
    keys,
    invocations,
    steering,
    bulk,
    scheduled,
    objects,
    workers,
    query,
)
for resource in RESOURCES:
    api.add_router("", resource.router)

CODES: dict[type[RuntimeFault], int] = {
    NotAllowed: 403,
    AccountFault: 400,
    UnknownInvocation: 404,
    BadCursor: 400,
    TookTooLong: 400,
    UnknownParameter: 400,
    BadDelay: 400,
    TooMany: 409,
    TooManyMeant: 409,
    CommandRefused: 400,
    TooLarge: 413,
    Disconnected: 503,
    DatabaseError: 503,
    Overloaded: 503,
    QueryRefused: 400,
    QueryNotSetUp: 501,
    LocationError: 400,
    SettingError: 503,
    BadAddress: 400,
    BadHeader: 400,
    AddressRefused: 403,
    OutboundError: 502,
    NotListed: 403,
    RegistrationRefused: 409,
    UnknownDeployment: 404,
    UnknownService: 404,
    UnknownHandler: 404,
    BadOption: 400,
    UnknownKey: 404,
    LastKey: 409,
    DeploymentNeeded: 409,
}


@api.exception_handler(RuntimeFault)
def _on_fault(request: HttpRequest, fault: RuntimeFault) -> HttpResponse:
    return _refuse(request, _code(fault), f"{fault} {fault.hint}".rstrip())


def _code(fault: RuntimeFault) -> int:
    """That of its class, or of the kind of fault that it is one of."""
    return next((CODES[kind] for kind in type(fault).__mro__ if kind in CODES), 500)


@api.exception_handler(OperationalError)
def _on_lost_database(request: HttpRequest, error: OperationalError) -> HttpResponse:
    return _refuse(request, 503, f"The database does not answer. {Disconnected.hint}")


@api.exception_handler(NotSignedIn)
def _on_nobody(request: HttpRequest, fault: NotSignedIn) -> HttpResponse:
    response = _refuse(request, 401, f"{fault} {fault.hint}")
    response.headers["WWW-Authenticate"] = 'Bearer realm="Perdure"'
    return response


@api.exception_handler(DataError)
def _on_unstorable(request: HttpRequest, error: DataError) -> HttpResponse:
    return _refuse(request, 400, f"The database cannot take this: {str(error).splitlines()[0]}.")


@api.exception_handler(RequestDataTooBig)
def _on_large_body(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return _refuse(request, 413, f"The body is larger than {most} bytes, which is the most that is taken here.")


@api.exception_handler(HttpError)
def _on_ninjas_own(request: HttpRequest, error: HttpError) -> HttpResponse:
    if error.status_code == 400:  # it could not be parsed
        return _refuse(request, 400, "The body is not JSON.", where="body")
    return _refuse(request, error.status_code, f"{error}.")


@api.exception_handler(InvalidInvocationId)
def _on_bad_id(request: HttpRequest, error: InvalidInvocationId) -> HttpResponse:
    return _refuse(request, 400, str(error))


@api.exception_handler(ValidationError)
def _on_bad_request(request: HttpRequest, error: ValidationError) -> HttpResponse:
    problem = misfit(error.errors)
    return _refuse(request, 400, problem.message, where=problem.where)


def _refuse(request: HttpRequest, status: int, message: str, where: str | None = None) -> HttpResponse:
    return api.create_response(request, Problem(message=message, where=where).dict(), status=status)
