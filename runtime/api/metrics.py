"""GET /metrics: for Prometheus, and whatever reads its format."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from runtime.api.guard import actor, viewer
from runtime.api.problems import Problem
from runtime.reading import metrics as reading

router = Router(tags=["house"])


@router.get(
    "/metrics",
    response={200: str, 503: Problem},
    auth=viewer.scoped,
    summary="Rates, latencies, queue depths and loop lag, for Prometheus",
    openapi_extra={"responses": {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}},
)
async def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format. A token of a viewer's is enough to scrape it; one for some services sees theirs."""
    text = await reading.text(actor(request).services)
    return HttpResponse(text, content_type=reading.CONTENT_TYPE)
