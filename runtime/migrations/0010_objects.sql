-- When an exclusive invocation was first seen to have its key; written together with its status.
ALTER TABLE invocation ADD COLUMN begun_at timestamptz;

-- What was done to an object's values: by people always, by handlers where their service says `state_history`. Written
-- in the flush that writes the values, and kept as long as the invocation that did it.
CREATE SEQUENCE state_history_position CACHE 1; -- a key's flushes come one after the other, so this is their order
CREATE TABLE state_history (
    service    text NOT NULL,
    key        text NOT NULL,
    position   bigint NOT NULL DEFAULT nextval('state_history_position'),
    name       text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    invocation uuid NOT NULL,
    handler    text NOT NULL,
    actor      text,                         -- the person; null: a handler did it
    before     bytea,                        -- null: there was none
    after      bytea,                        -- null: it was cleared
    expires_on date NOT NULL,
    PRIMARY KEY (service, key, position, expires_on)
) PARTITION BY RANGE (expires_on);
CREATE TABLE state_history_default PARTITION OF state_history DEFAULT;

CREATE OR REPLACE FUNCTION ensure_partitions(days_ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    made int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('perdure partitions'));
    FOREACH parent IN ARRAY ARRAY['journal', 'done', 'state_history'] LOOP
        FOR day IN SELECT generate_series(CURRENT_DATE, CURRENT_DATE + days_ahead, '1 day')::date LOOP
            CONTINUE WHEN to_regclass(format('%I', parent || to_char(day, '"_"YYYYMMDD'))) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                               parent || to_char(day, '"_"YYYYMMDD'), parent, day, day + 1);
                made := made + 1;
            EXCEPTION WHEN check_violation THEN NULL; -- rows of that day are in the default partition already
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
SELECT ensure_partitions(8);
