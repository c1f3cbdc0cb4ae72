"""The Celery app: it carries hints that there is work, never the work; losing all its messages loses nothing."""

from __future__ import annotations

import os
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging
from kombu.transport import virtual

from runtime.conf import settings
from runtime.drains import transport_options

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runtime.project.settings")

CHORES = "perdure.chores"

warnings.simplefilter("ignore", SecurityWarning)  # of a worker that is root: it is pickles that make that a danger

# A worker that lost its broker would give back what it had not begun, by the connection that is lost, and end with that
# (kombu 5.7). These are hints, and beat has sent newer ones.
virtual.Channel.do_restore = False


@setup_logging.connect
def _leave_logging_to_django(**_: Any) -> None:
    """Django's settings say who is heard; with a receiver, Celery sets up nothing of its own."""


app = Celery("perdure")
app.conf.update(
    broker_url=settings().broker_url,
    broker_transport_options=transport_options(settings().broker_url),
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # the engines go on meanwhile
    accept_content=["json"],
    task_serializer="json",
    task_ignore_result=True,
    result_backend=None,
    task_default_queue=CHORES,
    task_acks_late=False,  # a late one starts copies after the visibility timeout
    worker_prefetch_multiplier=1,
    worker_redirect_stdouts=False,  # what a handler prints is what it prints
    timezone="UTC",
    beat_schedule={
        "pulse": {"task": "perdure.pulse", "schedule": 5.0, "options": {"queue": CHORES, "expires": 5}},
        "bulk": {"task": "perdure.bulk", "schedule": 5.0, "options": {"queue": CHORES, "expires": 5}},
        "retention": {"task": "perdure.retention", "schedule": 60.0, "options": {"queue": CHORES, "expires": 60}},
    },
)
app.autodiscover_tasks(["runtime"])
