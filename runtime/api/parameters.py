"""Query parameters: those that an operation does not know are refused, for a slip in a filter's name shows too much."""

from __future__ import annotations

from django.http import HttpRequest
from ninja import Schema

from runtime.errors import RuntimeFault


class UnknownParameter(RuntimeFault):
    """This operation has no such query parameter."""

    code = "unknown_parameter"


def refuse_others(request: HttpRequest, known: type[Schema]) -> None:
    """Raises UnknownParameter for what is none of `known`."""
    unknown = sorted(set(request.GET) - known.model_fields.keys())
    if unknown:
        names = ", ".join(sorted(known.model_fields))
        raise UnknownParameter(f"There is no parameter {unknown[0][:100]!r} here. Those that there are: {names}.")
