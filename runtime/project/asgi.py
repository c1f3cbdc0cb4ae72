"""The web process as an ASGI application: dashboard, operators' API and static files."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

from runtime.api.headers import guarded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runtime.project.settings")

application = ProtocolTypeRouter({"http": guarded(ASGIStaticFilesHandler(get_asgi_application()))})
