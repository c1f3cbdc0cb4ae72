"""The dashboard's pages."""

from __future__ import annotations

from django.urls import path

from dashboard import views

app_name = "dashboard"

urlpatterns = [
    path("", views.overview, name="overview"),
    path("latest", views.latest, name="latest"),
    path("invocations/<str:id>", views.invocation, name="invocation"),
    path("api", views.api, name="api"),
    path("sign-in", views.sign_in, name="sign_in"),
    path("sign-out", views.sign_out, name="sign_out"),
    path("<path:path>", views.missing),
]
