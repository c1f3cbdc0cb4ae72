"""A restart that is asked for again, with the same idempotency key, makes no second invocation."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0016_failed_attempts"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text(), "DROP TABLE restart_key"),)
