"""Objects: since when a key is held, and what has become of its values."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0011_workers"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
