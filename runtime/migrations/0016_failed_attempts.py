"""How many attempts of an invocation have failed: kept while it is paused, and when it has ended."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0015_query_bounds"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
