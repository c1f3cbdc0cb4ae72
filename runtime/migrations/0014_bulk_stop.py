"""Verbs by filter that can be stopped, and are seen by those whose services they are about."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0013_timer_of_whom"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
