-- Who did what. Rows are written in the transaction of what they tell of, and never changed.
CREATE TABLE audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor   text NOT NULL,
    role    text NOT NULL,
    origin  text NOT NULL,                   -- an address, or `shell`
    verb    text NOT NULL,                   -- as in invocation.cancel
    target  text NOT NULL,
    details jsonb NOT NULL,
    result  text NOT NULL                    -- as in done, asked, denied
);
