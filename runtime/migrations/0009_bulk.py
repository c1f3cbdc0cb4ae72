"""Verbs by filter: durable, so that a restart does not leave them half done."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0005_suspect"),)
    operations = (
        migrations.RunSQL(
            Path(__file__).with_suffix(".sql").read_text(),
            state_operations=[
                migrations.CreateModel("Bulk", fields=[], options={"managed": False, "db_table": "bulk"})
            ],
        ),
    )
