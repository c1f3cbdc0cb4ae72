"""Signals by name, in order."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0017_restart_keys"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
