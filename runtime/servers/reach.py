"""Whether the servers that an address names can be reached, in words: for `up` before it starts, and for `doctor`."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import psycopg
from kombu import Connection

from runtime.servers import valkey

PATIENCE = 2  # seconds for a server to answer


def database_trouble(url: str) -> str | None:
    """Why the PostgreSQL there cannot be used; None: it answers."""
    try:
        with psycopg.connect(url, connect_timeout=PATIENCE):
            return None
    except psycopg.OperationalError as error:
        return f"no connection: {str(error).splitlines()[0]}"


def broker_trouble(url: str) -> str | None:
    """Why Celery's broker there cannot be used; None: it answers."""
    # What accepts a connection need not say a word: the client of RabbitMQ knows that.
    options = {"socket_timeout": PATIENCE} if is_redis(url) else {}
    try:
        with Connection(url, connect_timeout=PATIENCE, transport_options=options) as broker:
            broker.ensure_connection(max_retries=1, timeout=PATIENCE)
            return None
    except Exception as error:  # each transport of kombu has errors of its own
        return f"{without_password(url)} does not answer: {error}"


def channel_layer_trouble(url: str) -> str | None:
    """Why the Redis there cannot be used; None: it answers."""
    return None if asyncio.run(valkey.answers(url)) else f"{without_password(url)} does not answer"


def is_redis(broker_url: str) -> bool:
    """Whether kombu speaks to it as to a Redis."""
    return broker_url.startswith(("redis", "rediss", "sentinel", "unix"))


def without_password(url: str) -> str:
    """A URL to be shown.

    >>> without_password("redis://:secret@127.0.0.1:6379/0")
    'redis://127.0.0.1:6379/0'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
