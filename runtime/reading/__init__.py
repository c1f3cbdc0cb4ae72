"""What people read: services, invocations and their journals, as values for API, dashboard and terminal.

Cold reads through the ORM. Nothing here is locked, so an answer is true of the moment at which it was read.
"""
