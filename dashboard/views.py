"""The dashboard's views: they ask, and hand the answer to a template."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard import queries
from dashboard.page import page


@require_safe
@page
async def overview(request: HttpRequest) -> HttpResponse:
    """Services and the latest invocations."""
    return render(request, "dashboard/overview.html", {"overview": await queries.overview()})


@require_safe
@page
async def latest(request: HttpRequest) -> HttpResponse:
    """The latest invocations alone: what the overview refreshes itself with."""
    return render(request, "dashboard/latest.html", {"latest": await queries.latest()})
