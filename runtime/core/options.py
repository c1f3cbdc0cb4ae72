"""What operators may set on a service. It goes before what the code says, and is kept in the manifest's words.

An option belongs to the service's name: it stays when the service is registered anew, until it is taken back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from runtime.core.delays import BadDelay, read_delay, write_delay
from runtime.errors import RuntimeFault

QUEUE = "dev.perdure.queue"
DEADLOCKS = "dev.perdure.deadlocks"
HISTORY = "dev.perdure.state-history"
MOST_ATTEMPTS = 1_000_000
LONGEST_QUEUE = 100
_QUEUE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class BadOption(RuntimeFault):
    """A service has no such option, or it does not take this value."""

    code = "bad_option"


class DeadlockPolicy(StrEnum):
    """What is done about a deadlock in which a service takes part."""

    REPORT = "report"  # a person decides
    REFUSE = "refuse"  # the call that closed it ends with an error
    CANCEL_YOUNGEST = "cancel-youngest"


class Option(Struct, frozen=True):
    """One thing that may be set."""

    stored: str
    """Its name in a manifest."""
    read: Callable[[Any], Any]
    """From an operator's value to the manifest's; raises ValueError, whose words end "it takes …"."""
    write: Callable[[Any], Any] = lambda value: value
    """The other way round."""


def read_options(said: Mapping[str, Any]) -> dict[str, Any]:
    """A change in the manifest's words, from an operator's; None takes an option back. Raises BadOption.

    >>> read_options({"public": False, "journal_retention": "1h", "queue": None})
    {'ingressPrivate': True, 'journalRetention': 3600000, 'dev.perdure.queue': None}
    """
    change = {}
    for name, value in said.items():
        option = OPTIONS.get(name)
        if option is None:
            raise BadOption(f"A service has no option {name[:100]!r}. It has {', '.join(OPTIONS)}.")
        try:
            change[option.stored] = None if value is None else option.read(value)
        except ValueError as error:
            raise BadOption(f"{name} is {str(value)[:100]!r}: it takes {error}.") from None
    return change


def write_options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What is set, in an operator's words.

    >>> write_options({"ingressPrivate": True, "journalRetention": 3600000})
    {'public': False, 'journal_retention': '1h'}
    """
    return {name: option.write(stored[option.stored]) for name, option in OPTIONS.items() if option.stored in stored}


def _duration(value: Any) -> int:
    try:
        return read_delay(str(value))
    except BadDelay:
        raise ValueError("a duration as in 500ms, 60s, 1h 30m, 2 days, PT60S, of ten years at most") from None


def _is_private(value: Any) -> bool:
    return not _truth(value)


def _truth(value: Any) -> bool:
    said = {True: True, False: False, "true": True, "false": False}.get(value if isinstance(value, str | bool) else "")
    if said is None:
        raise ValueError("true or false")
    return said


def _attempts(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_ATTEMPTS:
        raise ValueError(f"a whole number from 1 to {MOST_ATTEMPTS}")
    return value


def _factor(value: Any) -> float:
    wanted = "a number from 1 to 1000"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(wanted)
    try:
        factor = float(value)
    except (ValueError, OverflowError):
        raise ValueError(wanted) from None
    if not (math.isfinite(factor) and 1 <= factor <= 1000):
        raise ValueError(wanted)
    return factor


def _queue(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_QUEUE or not _QUEUE_NAME.fullmatch(value):
        raise ValueError(f"the name of a queue: letters, digits, `.`, `_` and `-`, {LONGEST_QUEUE} at most")
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError(" or ".join(words))
        return value.lower()

    return read


def _at_the_end(value: Any) -> str:
    return _one_of("pause", "kill")(value).upper()


OPTIONS: Mapping[str, Option] = {
    "public": Option("ingressPrivate", _is_private, lambda stored: not stored),
    "idempotency_retention": Option("idempotencyRetention", _duration, write_delay),
    "journal_retention": Option("journalRetention", _duration, write_delay),
    "inactivity_timeout": Option("inactivityTimeout", _duration, write_delay),
    "abort_timeout": Option("abortTimeout", _duration, write_delay),
    "retry_initial_interval": Option("retryPolicyInitialInterval", _duration, write_delay),
    "retry_factor": Option("retryPolicyExponentiationFactor", _factor),
    "retry_max_interval": Option("retryPolicyMaxInterval", _duration, write_delay),
    "retry_max_attempts": Option("retryPolicyMaxAttempts", _attempts),
    "retry_on_max_attempts": Option("retryPolicyOnMaxAttempts", _at_the_end, str.lower),
    "queue": Option(QUEUE, _queue),
    "state_history": Option(HISTORY, lambda value: str(_truth(value)).lower(), lambda stored: stored == "true"),
    "deadlock_policy": Option(DEADLOCKS, _one_of(*DeadlockPolicy)),
}
"""By the names that operators use."""
