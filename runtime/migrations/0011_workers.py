"""Workers: what is drained, how busy they are, what they count."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0004_sql_page"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text()),)
