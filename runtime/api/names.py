"""Names in paths: what PostgreSQL can be asked for."""

from __future__ import annotations

from typing import Annotated

from ninja import Path

Name = Annotated[str, Path(max_length=512, pattern=r"^[^\x00]+$")]
"""Of a service, a handler, a deployment: any text without NUL."""
