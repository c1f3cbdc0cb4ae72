"""Workflows run once for each key, and have promises."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0020_waiters"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
