"""What the API answers to what it refuses."""

from __future__ import annotations

from ninja import Schema


class Problem(Schema):
    """Why a request was refused."""

    message: str
    restate_code: str | None = None
