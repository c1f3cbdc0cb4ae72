"""Which view answers which path of the web process: pages below /ui/, the operators' API everywhere else."""

from __future__ import annotations

from django.urls import include, path
from django.views.generic import RedirectView

from runtime.api.app import api

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="dashboard:overview")),
    path("ui", RedirectView.as_view(pattern_name="dashboard:overview")),
    path("ui/", include("dashboard.urls")),
    path("", api.urls),
]

handler404 = "runtime.api.problems.unknown_path"
