"""The callers' HTTP: calls, sends, results. A plain ASGI application, for every microsecond here is paid per call."""
