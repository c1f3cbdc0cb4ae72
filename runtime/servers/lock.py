"""The lock on a data directory: one `up` at a time, released with its process however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import RuntimeFault


class DataInUse(RuntimeFault):
    """Another `up` holds the data directory."""

    code = "data_in_use"
    hint = "Stop that one first, or give this one a directory and ports of its own: --data DIR --port N --web-port N."


@contextlib.contextmanager
def held(data: Path) -> Iterator[None]:
    """Hold the lock; raises DataInUse, naming the holder, when somebody else does."""
    file = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 100).decode(errors="replace").strip()
            raise DataInUse(f"{data} is in use by another `up` (pid {holder or 'unknown'}).") from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)
