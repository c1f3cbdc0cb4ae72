"""Registering: from the name of an endpoint in a Python module to its row in the registry.

What is wrong is said at once and in words, for it is the author who reads it.
"""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path

from perdure import Endpoint
from runtime.errors import RuntimeFault
from runtime.store import deployments
from runtime.store.deployments import Registered
from runtime.store.link import Link


class LocationError(RuntimeFault):
    """This location does not lead to an Endpoint."""

    code = "bad_location"
    hint = "Name it as MODULE:ATTRIBUTE, as in examples.communication:app."


class NotImportable(LocationError):
    """The module cannot be imported."""

    code = "not_importable"

    def __init__(self, module: str, error: BaseException) -> None:
        super().__init__(f"{module} cannot be imported: {_last_words(error)}")
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


async def register_module(location: str, link: Link) -> Registered:
    """Register the Endpoint at `package.module:attribute`: from now on it takes the new invocations of its services.

    Repeating it changes nothing. Raises LocationError in its kinds, ServiceTypeChanged.
    """
    endpoint = load_endpoint(location)
    return await deployments.store_deployment(
        link, id=deployment_id(endpoint), kind="module", location=location, manifest=endpoint.manifest()
    )


def load_endpoint(location: str) -> Endpoint:
    """The Endpoint at `package.module:attribute`; raises LocationError in its kinds."""
    module_name, _, attribute = location.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise LocationError(f"{location!r} is not the name of an endpoint.")
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
