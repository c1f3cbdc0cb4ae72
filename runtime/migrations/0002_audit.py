"""The audit log: who did what, from where, and what came of it."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0001_initial"),)
    operations = (
        migrations.RunSQL(
            Path(__file__).with_suffix(".sql").read_text(),
            state_operations=[
                migrations.CreateModel("AuditEntry", fields=[], options={"managed": False, "db_table": "audit"})
            ],
        ),
    )
