"""A query of operators is answered row by row, and a row that is too large or ambiguous is refused in words."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0014_bulk_stop"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
