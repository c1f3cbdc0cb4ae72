"""The operators' API and its operations."""

from __future__ import annotations

from typing import Annotated, Any

from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Query, Status
from ninja.errors import ValidationError
from ninja.operation import Operation

from perdure.errors import InvalidInvocationId
from perdure.protocol.ids import format_id, parse_id
from runtime import __version__, hall
from runtime.api import schemas
from runtime.api.schemas import Problem
from runtime.errors import Disconnected, Overloaded, RuntimeFault
from runtime.operations import UnknownInvocation
from runtime.reading import invocations, services
from runtime.store.verbs import Verdict

ADMIN_API_VERSION = 3  # of Restate's API, whose paths and codes these are


class OperatorsApi(NinjaAPI):
    def get_openapi_operation_id(self, operation: Operation) -> str:
        """What clients made from the document call it: our function's name, without where it stands."""
        return operation.view_func.__name__


api = OperatorsApi(
    title="Perdure: operators' API",
    version=__version__,
    description="See and steer what runs; callers of services use the ingress. Without a login yet: 127.0.0.1 only.",
    openapi_url="/openapi",
    docs_url=None,
    urls_namespace="api",
)


# The house ----------------------------------------------------------------------------------------------------------


@api.get("/health", response=schemas.Health, tags=["house"], summary="Whether this process answers")
async def health(request: HttpRequest) -> Any:
    """Of the database it says nothing, or a pause there would restart this process."""
    return {"status": "ok"}


@api.get("/version", response=schemas.Version, tags=["house"], summary="Which Perdure this is")
async def version(request: HttpRequest) -> Any:
    return {
        "version": __version__,
        "min_admin_api_version": ADMIN_API_VERSION,
        "max_admin_api_version": ADMIN_API_VERSION,
        "features": {},
    }


# Services -------------------------------------------------------------------------------------------------------------


@api.get("/services", response={200: schemas.Services, 503: Problem}, tags=["services"], summary="All services")
async def list_services(request: HttpRequest) -> Any:
    return {"services": [schemas.Service.of(served) for served in await services.services()]}


@api.get(
    "/services/{name}",
    response={200: schemas.Service, 404: Problem, 503: Problem},
    tags=["services"],
    summary="One service",
)
async def get_service(request: HttpRequest, name: str) -> Any:
    served = await services.service(name)
    if served is None:
        return Status(404, Problem(message=f"There is no service {name!r}."))
    return schemas.Service.of(served)


# Invocations ----------------------------------------------------------------------------------------------------------


@api.get(
    "/invocations",
    response={200: schemas.Invocations, 400: Problem, 503: Problem},
    tags=["invocations"],
    summary="The latest invocations, newest first",
)
async def list_invocations(request: HttpRequest, limit: Annotated[int, Query(ge=1, le=invocations.MOST)] = 100) -> Any:
    return {"invocations": [schemas.Invocation.of(summary) for summary in await invocations.latest(limit)]}


@api.get(
    "/invocations/{id}",
    response={200: schemas.InvocationDetail, 400: Problem, 404: Problem, 503: Problem},
    tags=["invocations"],
    summary="One invocation with its journal",
)
async def get_invocation(request: HttpRequest, id: str) -> Any:
    key = parse_id(id)
    detail = await invocations.find(key)
    if detail is None:
        raise UnknownInvocation(key)
    return schemas.InvocationDetail.of_detail(detail)


@api.patch(
    "/invocations/{id}/cancel",
    response={200: schemas.Told, 202: schemas.Told, 400: Problem, 404: Problem, 409: Problem, 503: Problem},
    tags=["invocations"],
    summary="Ask an invocation to end",
)
async def cancel(request: HttpRequest, id: str) -> Any:
    """It may undo what it did first. 200: it had not started, and has ended. 202: it has been asked."""
    key = parse_id(id)
    verdict = await (await hall.operations()).cancel(key)
    return _told(key, verdict, asked=202)


@api.patch(
    "/invocations/{id}/kill",
    response={200: schemas.Told, 400: Problem, 404: Problem, 409: Problem, 503: Problem},
    tags=["invocations"],
    summary="End an invocation at once",
)
async def kill(request: HttpRequest, id: str) -> Any:
    """Its unfinished calls end with it. Nothing is undone, and what it committed stays."""
    key = parse_id(id)
    verdict = await (await hall.operations()).kill(key)
    return _told(key, verdict, asked=200)


def _told(id: bytes, verdict: Verdict, *, asked: int) -> Status[Any]:
    if verdict is Verdict.ALREADY_ENDED:
        return Status(409, Problem(message=f"The invocation {format_id(id)} has ended already."))
    return Status(200 if verdict is Verdict.DONE else asked, schemas.Told(id=format_id(id), verdict=verdict))


# What can go wrong ----------------------------------------------------------------------------------------------------

CODES: dict[type[RuntimeFault], int] = {UnknownInvocation: 404, Disconnected: 503, Overloaded: 503}


@api.exception_handler(RuntimeFault)
def _on_fault(request: HttpRequest, fault: RuntimeFault) -> HttpResponse:
    return _refuse(request, CODES.get(type(fault), 500), f"{fault} {fault.hint}".rstrip())


@api.exception_handler(OperationalError)
def _on_lost_database(request: HttpRequest, error: OperationalError) -> HttpResponse:
    return _refuse(request, 503, f"The database does not answer. {Disconnected.hint}")


@api.exception_handler(InvalidInvocationId)
def _on_bad_id(request: HttpRequest, error: InvalidInvocationId) -> HttpResponse:
    return _refuse(request, 400, str(error))


@api.exception_handler(ValidationError)
def _on_bad_request(request: HttpRequest, error: ValidationError) -> HttpResponse:
    return _refuse(request, 400, "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in error.errors))


def _refuse(request: HttpRequest, status: int, message: str) -> HttpResponse:
    return api.create_response(request, {"message": message, "restate_code": None}, status=status)
