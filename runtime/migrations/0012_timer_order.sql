-- Sends that are due at one moment begin in the order in which they were sent: each draws a position as it is stored.
-- A sleep and a next attempt have none, for nobody else's order is theirs, and do not pay for the index.
-- A send pays about 2 us (of 12 for its timer; pairs of 50,000 on two cores).
-- CACHE 1: what is sent after another transaction's commit was seen stands behind what that one sent.
CREATE SEQUENCE timer_position CACHE 1;
ALTER TABLE timer ADD COLUMN position bigint;
UPDATE timer SET position = nextval('timer_position') WHERE slot = -1;
CREATE INDEX timer_send ON timer (due, position) WHERE slot = -1;

-- As before; but of those due at one moment the primary key knows the ids only. So it tells how many sends are among
-- the first, and their own index which.
CREATE OR REPLACE FUNCTION take_due(batch int)
RETURNS TABLE (id uuid, slot int, mode text, queue text, service text, key text) LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('perdure timers')) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH first AS (
        SELECT timer.due, timer.invocation, timer.slot FROM timer WHERE timer.due <= clock_timestamp()
        ORDER BY timer.due, timer.invocation LIMIT batch
    ), sends AS (
        SELECT timer.due, timer.invocation, timer.slot FROM timer
        WHERE timer.slot = -1 AND timer.due <= (SELECT max(first.due) FROM first)
        ORDER BY timer.due, timer.position LIMIT (SELECT count(*) FROM first WHERE first.slot = -1)
    ), due AS (
        SELECT * FROM sends UNION ALL SELECT * FROM first WHERE first.slot <> -1
    ), taken AS (
        DELETE FROM timer USING due
        WHERE timer.due = due.due AND timer.invocation = due.invocation AND timer.slot = due.slot
        RETURNING timer.due, timer.position, timer.invocation, timer.slot
    )
    SELECT invocation.id, taken.slot, invocation.mode, invocation.queue, invocation.service, invocation.key
    FROM taken JOIN invocation ON invocation.id = taken.invocation
    ORDER BY taken.due, taken.position;
END $$;
