"""Listing: what people find invocations by."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0006_tokens"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
