"""What requests carry: query parameters that an operation does not know are refused, for a slip in a filter's name
shows too much; a duration is a text, or a number of milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest
from ninja import Schema
from pydantic import BeforeValidator, WithJsonSchema

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


def _written(value: Any) -> str:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError("must be a duration, as in `5s`, `PT5S` or 5000 (milliseconds)")


Duration = Annotated[
    str, BeforeValidator(_written), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}]})
]
"""As callers of the ingress write a delay, for `read_delay`."""
