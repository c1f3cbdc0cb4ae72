"""Django's settings, derived from the environment by runtime.conf; nothing else reads environment variables here."""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from runtime.conf import settings

ROOT = Path(__file__).resolve().parent.parent.parent
PERDURE = settings()

# Without one, what a process signs is worth nothing to the next: enough for commands, and `check --deploy` says so.
SECRET_KEY = PERDURE.secret_key or secrets.token_urlsafe(50)
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *PERDURE.hosts]
CSRF_TRUSTED_ORIGINS = [f"https://{host}" for host in PERDURE.hosts]  # behind a proxy that speaks TLS
ROOT_URLCONF = "runtime.project.urls"
ASGI_APPLICATION = "runtime.project.asgi.application"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.postgres",  # Django 6 wants it for array fields
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "runtime",
    "dashboard",
]

# A short list on purpose: under ASGI each of Django's own costs a hop to a thread, per request.
MIDDLEWARE = [
    "runtime.api.origin.same_origin",
    "runtime.api.problems.methods_in_words",
    "runtime.api.paths.whole_segments",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]


def database(url: str) -> dict[str, Any]:
    """A PostgreSQL URL, or any of libpq's connection strings, as Django wants it."""
    parts = conninfo_to_dict(url)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    known = {names[name]: str(value) for name, value in parts.items() if name in names}
    options = {name: value for name, value in parts.items() if name not in names}
    return {"ENGINE": "django.db.backends.postgresql", "NAME": "", "ATOMIC_REQUESTS": False, "OPTIONS": options} | known


def _packaged(package: str) -> list[Path]:
    """The static files of a package. As an app it would be imported by every process, commands and engines too: Ninja,
    with Pydantic, took a third of the time that Django takes to set up."""
    spec = find_spec(package)
    return [Path(place) / "static" for place in (spec.submodule_search_locations or [] if spec else [])]


# What edits an object's values may hold several of them, in base64; what is too large for one is refused in words.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * PERDURE.limits.payload
DATABASES = {"default": database(PERDURE.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [PERDURE.channel_url]},
    }
    if PERDURE.channel_url
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

# Served by the web process itself (see asgi.py): few files, and no proxy to set up before the first look.
STATIC_URL = "static/"
STATICFILES_DIRS = [ROOT / "static", *_packaged("ninja")]  # Ninja's is its copy of Swagger UI

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-us"
USE_I18N = False

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "dashboard:sign_in"
SESSION_COOKIE_AGE = 14 * 86_400
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s", "datefmt": "%H:%M:%S"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.request": {"level": "ERROR"},  # a refused request is told to who asked
        **{name: {"level": "WARNING"} for name in ("celery", "kombu", "amqp", "asyncio")},
    },
}
