"""All who await an end are told of it."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0019_http_deployments"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
