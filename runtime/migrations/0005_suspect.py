"""Engines note which suspect they try."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0008_listing"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
