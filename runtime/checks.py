"""What Django can tell about a wrong set-up before anything runs: `manage.py check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import connections

from runtime.conf import SettingError, settings

OLDEST_POSTGRES = 15


@register(Tags.database)
def postgres_is_new_enough(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Runs before every migrate, and with `check --database default`."""
    if "default" not in (databases or ()):
        return []
    connection = connections["default"]
    if connection.vendor != "postgresql":
        return [Error("Perdure keeps its truth in PostgreSQL only.", hint="Set DATABASE_URL.", id="perdure.E001")]
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
        (major,) = cursor.fetchone()
    if major < OLDEST_POSTGRES:
        return [
            Error(
                f"PostgreSQL {major} is too old.",
                hint=f"Perdure needs PostgreSQL {OLDEST_POSTGRES} or newer.",
                id="perdure.E002",
            )
        ]
    return []


@register(Tags.compatibility, deploy=True)
def channel_layer_reaches_other_processes(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    backend = django_settings.CHANNEL_LAYERS["default"]["BACKEND"]
    if backend == "channels.layers.InMemoryChannelLayer":
        return [
            Warning(
                "Live events stay within one process.",
                hint="Set CHANNEL_URL to a Redis or Valkey; `./dev up` starts one when it is unset.",
                id="perdure.W001",
            )
        ]
    return []


@register(Tags.security)
def deployments_can_be_asked(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    from runtime.outbound import Guard  # not above, where every command would pay for it
    from runtime.outbound.identity import Identity

    try:
        Guard.of(settings())
        Identity.of(settings())
    except SettingError as error:
        return [Error(str(error), hint=error.hint, id="perdure.E003")]
    return []


@register(Tags.security, deploy=True)
def secret_key_is_lasting(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    if settings().secret_key is None:
        return [
            Warning(
                "Every process makes up its own secret key: people are signed out whenever one starts.",
                hint="Set PERDURE_SECRET_KEY to the same long random text for all of them.",
                id="perdure.W002",
            )
        ]
    return []
