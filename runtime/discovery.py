"""Discovery: from the name of an endpoint in a Python module to its manifest.

What is wrong is said in words, for it is the author who reads it. A command and an engine import the module where they
run; the web process has that done by a process of its own (`python -m runtime.discovery`), for what a module does when
it is imported, nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path

import django
import msgspec
from msgspec import Struct

from perdure import Endpoint
from runtime.core.deployments import Reached
from runtime.errors import RuntimeFault

NUL = rb"\u0000"
PATIENCE = 20.0
"""Seconds that importing a module may take when another process waits for it."""


class LocationError(RuntimeFault):
    """This location does not lead to an Endpoint."""

    code = "bad_location"
    hint = "Name it as MODULE:ATTRIBUTE, as in examples.communication:app."


class NotImportable(LocationError):
    """The module cannot be imported."""

    code = "not_importable"

    def __init__(self, module: str, error: BaseException) -> None:
        super().__init__(f"{module} cannot be imported: {_last_words(error)}.")
        self.hint = (
            "It must be in the directory you are in or on PYTHONPATH, with all that it imports."
            if isinstance(error, ModuleNotFoundError)
            else "It was found, and then its own code stopped."
        )


class NoSuchAttribute(LocationError):
    """The module has nothing of this name."""

    code = "no_such_attribute"


class NotAnEndpoint(LocationError):
    """There is something of this name, but it is no Endpoint."""

    code = "not_an_endpoint"
    hint = "Write `app = Endpoint(MyService, ...)` in the module, and register that."


class NothingToServe(LocationError):
    """The Endpoint has no services."""

    code = "nothing_to_serve"
    hint = "Give it some: `app = Endpoint(MyService, ...)`."


class Discovered(Struct, frozen=True):
    """An endpoint as it can be registered."""

    id: str
    location: str
    manifest: bytes
    """The JSON of its Manifest."""
    reached: Reached | None = None
    """None: it is a module's, and engines import it."""


def discover(location: str) -> Discovered:
    """The Endpoint at `package.module:attribute`, imported here; raises LocationError in its kinds."""
    endpoint = load_endpoint(location)
    if not endpoint.handlers:
        raise NothingToServe(f"{location} has no services.")
    manifest = endpoint.manifest().to_json()
    if NUL in manifest:
        raise LocationError(f"{location} has a NUL character in a docstring or a schema, which cannot be stored.")
    return Discovered(deployment_id(endpoint), location, manifest)


def load_endpoint(location: str) -> Endpoint:
    """The Endpoint at `package.module:attribute`; raises LocationError in its kinds."""
    module_name, attribute = parse_location(location)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise NotImportable(module_name, error) from error
    found = getattr(module, attribute, None)
    if isinstance(found, Endpoint):
        return found
    others = [f"{module_name}:{name}" for name, value in vars(module).items() if isinstance(value, Endpoint)]
    advice = f" There is {', '.join(others)}." if others else ""
    if found is None:
        raise NoSuchAttribute(f"{module_name} has no {attribute!r}.{advice}")
    raise NotAnEndpoint(f"{location} is {_kind(found)}, not an Endpoint.{advice}")


def parse_location(location: str) -> tuple[str, str]:
    """The names of module and attribute; raises LocationError."""
    module, _, attribute = location.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise LocationError(f"{location[:200]!r} is not the name of an endpoint.")
    return module, attribute


def deployment_id(endpoint: Endpoint) -> str:
    """The name of code that runs in the engines' own processes: the same code has the same name everywhere."""
    return f"dp_{endpoint.code_hash}"


def _last_words(error: BaseException) -> str:
    """The last line of the traceback, and where in the author's files it was."""
    words = f"{type(error).__name__}: {error}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__)[1:] if "importlib" not in frame.filename]
    if not frames:  # the module was not found, or is no Python: then the words name the line
        return words
    return f"{words} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


# In a process of its own ------------------------------------------------------------------------------------------


class _Problem(Struct, frozen=True, tag="problem"):
    message: str
    hint: str


class _Found(Struct, frozen=True, tag="found"):
    id: str
    manifest: str


async def discover_apart(location: str) -> Discovered:
    """As `discover`, with the code of the module as it is now, and nothing of it in this process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "runtime.discovery", location),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    talk = asyncio.ensure_future(process.communicate())
    try:
        await asyncio.wait({talk}, timeout=PATIENCE)
    finally:
        is_late = not talk.done()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever the module started
    answer, _ = await talk
    if is_late:
        raise LocationError(f"Importing {location} has not ended after {PATIENCE:g} s.")
    if not answer:
        raise LocationError(f"Importing {location} ended its process with exit code {process.returncode}.")
    told = msgspec.json.decode(answer, type=_Problem | _Found)
    if isinstance(told, _Problem):
        problem = LocationError(told.message)
        problem.hint = told.hint
        raise problem
    return Discovered(told.id, location, told.manifest.encode())


def _main(location: str) -> None:
    """Write what was found, or what is wrong, to standard output; what the module prints goes to standard error."""
    output = os.dup(1)
    os.dup2(2, 1)
    django.setup()  # as engines do before they import it
    told: _Problem | _Found
    try:
        found = discover(location)
        told = _Found(found.id, found.manifest.decode())
    except LocationError as problem:
        told = _Problem(str(problem), problem.hint)
    except Exception as error:  # what only its manifest brings to light
        told = _Problem(f"{location} cannot be described: {_last_words(error)}.", "")
    with os.fdopen(output, "wb") as file:
        file.write(msgspec.json.encode(told))
    os._exit(0)  # threads of the module are not waited for


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runtime.project.settings")
    _main(sys.argv[1])
