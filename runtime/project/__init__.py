"""The composition root: where settings, URLs, the web application and the Celery app are put together."""
