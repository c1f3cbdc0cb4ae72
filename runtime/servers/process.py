"""A process to be kept running: what to start, how to tell that it answers, how to stop it."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Probe = Callable[[], Coroutine[Any, Any, bool]]  # False, or an OSError, means not yet

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Process:
    name: str
    command: tuple[str, ...]
    answers: Probe
    environment: Mapping[str, str] = field(default_factory=dict)  # on top of ours
    log: Path | None = None  # its output goes to this file instead of our lines
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_within: float = 60.0  # seconds until it must answer
    stop_within: float = 10.0  # seconds from stop_signal to SIGKILL
    most_memory: int | None = None  # bytes for itself, and for each of its children

    def options(self) -> dict[str, Any]:
        """Keyword arguments for subprocess.Popen and asyncio's relative: a group of its own that dies with us."""
        options: dict[str, Any] = {
            "env": {**os.environ, **self.environment},
            "start_new_session": True,  # a terminal's Ctrl-C is for the supervisor, which stops things in order
            "preexec_fn": _before_exec(self.stop_signal, self.most_memory),
        }
        return options | as_user(self.user)


@dataclass(frozen=True, slots=True)
class Step:
    """A command that must have ended well before what follows is started."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def as_user(user: str | None) -> dict[str, Any]:
    """Keyword arguments for subprocess.Popen that make a child of root's another user's; None leaves it ours."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _before_exec(stop_signal: signal.Signals, most_memory: int | None) -> Callable[[], None] | None:
    """Where the kernel can (Linux), it stops the child when we are killed in a way that lets us stop nothing, and
    gives it no more memory than it may have.

    It is the death of the *thread* that started the child which counts, so start children from the main thread.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec as little as can be should happen
    parent = os.getpid()

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, stop_signal)
        if most_memory is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (most_memory, most_memory))
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return before_exec
