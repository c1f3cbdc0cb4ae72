"""Workflows are sent in an application's own transaction, too."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0021_promises"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
