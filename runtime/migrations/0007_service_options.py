"""What operators set on services, and the keys of callers at the ingress."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0010_objects"),)
    operations = (
        migrations.RunSQL(
            Path(__file__).with_suffix(".sql").read_text(),
            state_operations=[
                migrations.CreateModel(
                    "ServiceOptions", fields=[], options={"managed": False, "db_table": "service_options"}
                ),
                migrations.CreateModel("IngressKey", fields=[], options={"managed": False, "db_table": "ingress_key"}),
            ],
        ),
    )
