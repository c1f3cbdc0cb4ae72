-- Restarts that were asked for with an idempotency key: asked again, they are answered with the same new invocation, for
-- as long as that one is kept.
CREATE TABLE restart_key (
    actor text NOT NULL,        -- who asked
    source uuid NOT NULL,       -- what is done again
    key text NOT NULL,
    invocation uuid NOT NULL,   -- the new one
    PRIMARY KEY (source, actor, key)
);
