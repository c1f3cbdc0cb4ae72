"""The engine's tables: made by the SQL of the same name, known to Django as unmanaged models.

Not reversible: what it would drop is every invocation and all state.
"""

from __future__ import annotations

from pathlib import Path

from django.db import migrations

SQL = Path(__file__).with_suffix(".sql").read_text()

TABLES = {
    "Deployment": "deployment",
    "Done": "done",
    "Engine": "engine",
    "Heartbeat": "heartbeat",
    "Inbox": "inbox",
    "Invocation": "invocation",
    "Journal": "journal",
    "ObjectKey": "object_key",
    "Service": "service",
    "State": "state",
}


class Migration(migrations.Migration):
    initial = True
    dependencies = ()
    operations = (
        migrations.RunSQL(
            SQL,
            # That they exist is all that Django compares of unmanaged models, so their fields stand in models.py only.
            state_operations=[
                migrations.CreateModel(name, fields=[], options={"managed": False, "db_table": table})
                for name, table in TABLES.items()
            ],
        ),
    )
