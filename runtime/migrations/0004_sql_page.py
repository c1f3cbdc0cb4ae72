"""The views that operators read in SQL, and the role that may read nothing else."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0003_outbox"),)
    operations = (migrations.RunSQL(Path(__file__).with_suffix(".sql").read_text(), "DROP SCHEMA perdure_sql CASCADE"),)
