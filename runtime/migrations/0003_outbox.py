"""Sends from inside an application's transaction: the outbox, and the functions that applications may call."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).with_suffix(".sql").read_text()


class Migration(migrations.Migration):
    dependencies = (("perdure", "0002_audit"),)
    operations = (
        migrations.RunSQL(
            SQL,
            state_operations=[
                migrations.CreateModel("Outbox", fields=[], options={"managed": False, "db_table": "outbox"})
            ],
        ),
    )
