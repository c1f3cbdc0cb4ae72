"""What can go wrong between the runtime and its surroundings: whose fault it is, and what to do next."""

from __future__ import annotations


class RuntimeFault(Exception):
    """Something is wrong in or around the runtime."""

    code = "internal"
    hint = ""


class Disconnected(RuntimeFault):
    """The database connection was lost: whether the last transaction was committed is not known."""

    code = "database_unavailable"
    hint = "Is PostgreSQL up, and does DATABASE_URL name it?"


class DatabaseError(RuntimeFault):
    """PostgreSQL refused a transaction; nothing of it was done."""

    code = "database_error"

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{message} (SQLSTATE {sqlstate})")
        self.sqlstate = sqlstate

    @property
    def is_transient(self) -> bool:
        """Serialization failures, deadlocks, a cancelled query: the same transaction may pass now."""
        return self.sqlstate in ("40001", "40P01", "57014")

    @property
    def is_poison(self) -> bool:
        """A value does not fit, or a row is not as its writer remembers it: the same transaction never passes."""
        return self.sqlstate[:2] in ("21", "22", "23", "54") or self.is_mismatch

    @property
    def is_mismatch(self) -> bool:
        """A row is not as its writer remembers it: somebody else was here."""
        return self.sqlstate == "PF003"

    @property
    def is_lock_timeout(self) -> bool:
        return self.sqlstate == "55P03"

    @property
    def is_fence(self) -> bool:
        """The engine was declared dead: it must forget everything."""
        return self.sqlstate == "PF001"

    @property
    def is_vouch(self) -> bool:
        """Work was given to an engine that is dead."""
        return self.sqlstate == "PF002"


class Overloaded(RuntimeFault):
    """Too much is waiting to be stored."""

    code = "overloaded"
    hint = "Try again in a moment, with fewer calls at once."
