"""A schema: the one look into a caller's JSON, so that what can never fit is refused at the door.

Nothing is fetched for it: a reference that leaves the document makes it unusable, which is logged when it is compiled.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jsonschema_rs
from msgspec.json import Decoder

log = logging.getLogger(__name__)

LONGEST_PROBLEM = 300
UNQUOTED = "the value"

_decode = Decoder().decode


class Schema:
    """A compiled JSON schema."""

    def __init__(self, schema: Any, owner: str) -> None:
        self._schema = schema
        try:
            self._validator = jsonschema_rs.validator_for(schema, offline=True)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            log.warning("the input of %s is not checked, for its schema cannot be used: %s", owner, _short(str(error)))
            self._schema = True
            self._validator = jsonschema_rs.validator_for(True)

    @cached_property
    def _unquoting(self) -> Any:
        """The same, for words that are read by others than who sent the JSON."""
        return jsonschema_rs.validator_for(self._schema, offline=True, mask=UNQUOTED)

    def problem(self, body: bytes, *, quoting: bool = True) -> str | None:
        """What is wrong with this JSON, and where; None: it fits. `quoting`: the value may be shown.

        >>> numbers = Schema({"items": {"type": "number"}}, "Shop/buy")
        >>> numbers.problem(b'[1, "two"]')
        'at $[1]: "two" is not of type "number"'
        >>> numbers.problem(b'[1, "two"]', quoting=False)
        'at $[1]: the value is not of type "number"'
        """
        try:
            value = _decode(body)
        except RecursionError:
            return "it is nested too deeply"
        except ValueError as error:
            return f"it is not JSON ({error})"
        try:
            (self._validator if quoting else self._unquoting).validate(value)
        except jsonschema_rs.ValidationError as error:
            return f"at {_place(error.instance_path)}: {_short(error.message)}"
        except ValueError as error:  # JSON that the validator cannot hold
            return _short(str(error))
        return None


def _place(path: Sequence[str | int]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_PROBLEM else text[:LONGEST_PROBLEM] + "…"
