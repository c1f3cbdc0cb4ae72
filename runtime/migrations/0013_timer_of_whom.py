"""Timers of sends say whose they are."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0012_timer_order"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
