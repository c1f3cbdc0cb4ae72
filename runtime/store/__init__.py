"""The store: PostgreSQL, one file per moment of an invocation's life. Async only; nobody else speaks SQL to psycopg.

Lock order, in every transaction, each class sorted and locked before it is changed:

1. the engine's row (`fence`, `vouch`),
2. idempotency rows,
3. promises,
4. key rows,
5. invocation rows, with the inboxes' heads.

Statements that look at what a lock protects come after the one that takes it: under READ COMMITTED a statement that
waited re-reads the locked row only, not what its subqueries saw.
"""
