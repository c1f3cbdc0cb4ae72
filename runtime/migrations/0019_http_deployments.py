"""Deployments behind a URL: how they are reached."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0018_signals"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
