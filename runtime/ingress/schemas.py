"""A schema: the one look into a caller's JSON, so that what can never fit is refused at the door.

Nothing is fetched for it: a reference that leaves the document makes it unusable, which is logged when it is compiled.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import jsonschema_rs
from msgspec.json import Decoder

log = logging.getLogger(__name__)

LONGEST_PROBLEM = 300

_decode = Decoder().decode


class Schema:
    """A compiled JSON schema."""

    def __init__(self, schema: Any, owner: str) -> None:
        try:
            self._validator = jsonschema_rs.validator_for(schema, offline=True)
        except (jsonschema_rs.ValidationError, ValueError) as error:
            log.warning("the input of %s is not checked, for its schema cannot be used: %s", owner, _short(str(error)))
            self._validator = jsonschema_rs.validator_for(True)

    def problem(self, body: bytes) -> str | None:
        """What is wrong with this JSON, and where; None: it fits.

        >>> Schema({"items": {"type": "number"}}, "Shop/buy").problem(b'[1, "two"]')
        'at $[1]: "two" is not of type "number"'
        """
        try:
            value = _decode(body)
        except RecursionError:
            return "it is nested too deeply"
        except ValueError as error:
            return f"it is not JSON ({error})"
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return f"at {_place(error.instance_path)}: {_short(error.message)}"
        except ValueError as error:  # JSON that the validator cannot hold
            return _short(str(error))
        return None


def _place(path: Sequence[str | int]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_PROBLEM else text[:LONGEST_PROBLEM] + "…"
