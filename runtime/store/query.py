"""The SQL page: one query of an operator, answered by a role that can read the views of docs/sql.md and nothing else.

What holds is in the database: see `set_up_reader` in migration 0015. Here stand the bounds, of time, memory and size,
and a connection of its own for each query: whatever it leaves behind goes with it.
"""

from __future__ import annotations

import re

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
MOST_FILES = "256MB"
BOUND_FILES = f"""
SELECT set_config('temp_file_limit', '{MOST_FILES}', false) WHERE has_parameter_privilege('temp_file_limit', 'SET')
"""
IS_SET_UP = """
SELECT coalesce(has_function_privilege(to_regprocedure('perdure_sql.read(text, int, int)'), 'EXECUTE'), false)
"""
READ = "SELECT read::text FROM perdure_sql.read(%s, %s, %s) AS read"

HINT = "Ask with one SELECT on the views of docs/sql.md."
NARROW = "Narrow it: docs/sql.md says what is fast."


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
    _refuse_others(query)
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
        raise _in_words(error, query, bounds) from error
    if rows and rows[-1] is None:
        return Answer(rows[:-1], is_cut=True)
    return Answer(rows, is_cut=False)


# What stands before a statement's first word; a comment within a comment is left to PostgreSQL.
_PREFACE = re.compile(r"(?:\s|--[^\n]*|/\*.*?\*/)*+", re.DOTALL)
_WORD = re.compile("[A-Za-z]+")


def _refuse_others(query: str) -> None:
    """Raise QueryRefused for what is plainly no SELECT."""
    if not query.strip():
        raise QueryRefused("The query is empty.", HINT)
    rest = query[_PREFACE.match(query).end() :]  # type: ignore[union-attr]
    if not rest.strip("; \t\r\n"):
        raise QueryRefused("There is no statement in the query.", HINT)
    word = _WORD.match(rest)
    if word is not None and word[0].upper() == "EXPLAIN":
        hint = "psql shows the plan: the views are in the schema perdure_sql."
        raise QueryRefused("EXPLAIN is not answered, only the SELECT itself.", hint)
    if word is not None and word[0].upper() not in ("SELECT", "WITH", "VALUES", "TABLE"):
        raise QueryRefused(f"Only a SELECT is answered, and this begins with {word[0][:30]}.", HINT)


def _in_words(error: psycopg.Error, query: str, bounds: Bounds) -> RuntimeFault:
    state, said = error.sqlstate, error.diag.message_primary or str(error).strip()
    if state is None or (state[:2] in ("08", "28", "3D", "53", "57") and state not in ("57014", "53200", "53400")):
        return Disconnected(said)
    match state:
        case "PQ001":
            hint = "A query reads the views of docs/sql.md, with functions that do nothing but compute."
            return QueryRefused(f"{said}.", hint)
        case "PQ002":
            hint = "Ask for fewer columns, or for a part of a value: left(value_utf8, 1000)."
            return QueryRefused(f"A row has more than the {MOST_BYTES >> 20} MB that an answer may have.", hint)
        case "PQ003":
            return QueryRefused(f"{said[:1].upper()}{said[1:]}.", "Name the columns apart, with AS.")
        case "42501":
            return QueryRefused(f"{said}.", "The views of docs/sql.md can be read, and nothing else.")
        case "42P11" if ";" in query:
            return QueryRefused("Only one SELECT is answered, and these are several statements.")
        case "0A000" | "25006" | "42P11":
            return QueryRefused(f"Only one SELECT is answered: {said}.")
        case "57014":
            return QueryRefused(f"The query was stopped after {bounds.seconds} s.", NARROW)
        case "53200":
            return QueryRefused("The query was stopped, for it wants more memory than it may have.", NARROW)
        case "53400":
            return QueryRefused(f"The query was stopped, for it wants more than {MOST_FILES} of files.", NARROW)
    at = error.diag.internal_position if error.diag.internal_query else None
    return QueryRefused(f"{said}, at character {at}." if at else f"{said}.")
