"""What is due at one moment: sends begin in the order in which they were sent."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0009_bulk"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
