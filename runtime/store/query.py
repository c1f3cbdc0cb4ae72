"""The SQL page: one query of an operator, answered by a role that can read the views of docs/sql.md and nothing else.

What holds is in the database: see `set_up_reader` in migration 0004. Here stand the bounds, of time, memory and size,
and a connection of its own for each query: whatever it leaves behind goes with it.
"""

from __future__ import annotations

import psycopg
from msgspec import Struct
from psycopg.conninfo import make_conninfo

from runtime.errors import Disconnected, RuntimeFault

MOST_BYTES = 16 << 20
LONGEST = 100_000
"""Characters of a query."""

# No parallel workers and no compiler: a person's question must not take the cores from the engines.
SETTINGS = {
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "5s",
    "work_mem": "32MB",
    "hash_mem_multiplier": "1",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "client_min_messages": "error",
}
# Only a superuser may set it, or who was granted that.
BOUND_FILES = """
SELECT set_config('temp_file_limit', '256MB', false) WHERE has_parameter_privilege('temp_file_limit', 'SET')
"""
IS_SET_UP = """
SELECT coalesce(has_function_privilege(to_regprocedure('perdure_sql.read(text, int, int)'), 'EXECUTE'), false)
"""
READ = "SELECT read::text FROM perdure_sql.read(%s, %s, %s) AS read"


class QueryRefused(RuntimeFault):
    """The query cannot be answered: it is wrong, asks for too much, or for what it may not see."""

    code = "query_refused"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class QueryNotSetUp(RuntimeFault):
    """The database role that answers queries is not there."""

    code = "query_not_set_up"
    hint = (
        "Perdure's own database role may not create roles: let one that may run `SELECT perdure_sql.set_up_reader()` in"
        " this database. docs/sql.md says what it does."
    )


class Bounds(Struct, frozen=True):
    """How much one query may take."""

    seconds: int
    rows: int


class Answer(Struct, frozen=True):
    rows: list[str]
    """Each a JSON object."""
    is_cut: bool
    """There was more."""


async def answer(database_url: str, query: str, bounds: Bounds) -> Answer:
    """Run one SELECT. Raises QueryRefused, QueryNotSetUp, Disconnected."""
    if len(query) > LONGEST or "\0" in query:
        raise QueryRefused(f"A query may have {LONGEST} characters, and none of them is NUL.")
    options = SETTINGS | {"statement_timeout": f"{bounds.seconds}s", "default_transaction_read_only": "on"}
    conninfo = make_conninfo(
        database_url,
        application_name="perdure query",
        options=" ".join(f"-c {name}={value}" for name, value in options.items()),
    )
    try:
        async with await psycopg.AsyncConnection.connect(conninfo) as connection:
            await connection.execute(BOUND_FILES)
            if (await (await connection.execute(IS_SET_UP)).fetchone()) != (True,):
                raise QueryNotSetUp("Queries cannot be answered yet.")
            cursor = await connection.execute(READ, (query, bounds.rows, MOST_BYTES))
            rows = [row for (row,) in await cursor.fetchall()]
    except psycopg.Error as error:
        raise _in_words(error, bounds) from error
    if rows and rows[-1] is None:
        return Answer(rows[:-1], is_cut=True)
    return Answer(rows, is_cut=False)


def _in_words(error: psycopg.Error, bounds: Bounds) -> RuntimeFault:
    state, said = error.sqlstate, error.diag.message_primary or str(error).strip()
    if state is None or (state[:2] in ("08", "28", "3D", "53", "57") and state not in ("57014", "53200", "53400")):
        return Disconnected(said)
    match state:
        case "PQ001":
            hint = "A query reads the views of docs/sql.md, with functions that do nothing but compute."
            return QueryRefused(f"{said}.", hint)
        case "42501":
            return QueryRefused(f"{said}.", "The views of docs/sql.md can be read, and nothing else.")
        case "0A000" | "25006" | "42P11":
            return QueryRefused(f"Only one SELECT is answered: {said}.")
        case "57014":
            hint = "Narrow it: docs/sql.md says what is fast."
            return QueryRefused(f"The query was stopped after {bounds.seconds} s.", hint)
    at = error.diag.internal_position if error.diag.internal_query else None
    return QueryRefused(f"{said}, at character {at}." if at else f"{said}.")
