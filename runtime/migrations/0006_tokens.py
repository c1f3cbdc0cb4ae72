"""Tokens: whom programs come in as."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("perdure", "0007_service_options"), ("auth", "0012_alter_user_first_name_max_length"))
    operations = (
        migrations.RunSQL(
            Path(__file__).with_suffix(".sql").read_text(),
            state_operations=[
                migrations.CreateModel(
                    "Token",
                    fields=[],
                    options={
                        "managed": False,
                        "db_table": "token",
                        "default_permissions": (),
                        "permissions": (("see_payloads", "Sees inputs, results, state and journals, as a viewer too"),),
                    },
                )
            ],
        ),
    )
