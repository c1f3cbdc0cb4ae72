-- The tables of the engine. Hot ones are narrow and carry no more than their primary key; what people filter by
-- belongs on history. No foreign keys, no triggers: the engine's flush checks its own row counts.

-- Who works. ---------------------------------------------------------------------------------------------------

CREATE TABLE engine (
    id          uuid PRIMARY KEY,            -- fresh at every start: a counter may be lost in a failover
    host        text NOT NULL,
    pid         int NOT NULL,
    address     text NOT NULL,               -- where hints are taken: a socket's path, or host:port
    queues      text[] NOT NULL,
    deployments text[] NOT NULL,             -- the code it has loaded
    lock_key    bigint NOT NULL,             -- the advisory lock its pulse holds while it lives
    backends    int[] NOT NULL DEFAULT '{}', -- its connections: a rescuer ends them, for a frozen client keeps its locks
    alive       boolean NOT NULL DEFAULT true,
    started_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE INDEX engine_alive ON engine (id) WHERE alive;

-- Apart from engine: a beat must not wait for a flush, which locks the engine's row.
CREATE UNLOGGED TABLE heartbeat (
    engine    uuid PRIMARY KEY,
    beat      bigint NOT NULL DEFAULT 0,
    attached  boolean NOT NULL DEFAULT false,  -- a drain is attached: it takes new work
    room      int NOT NULL DEFAULT 0,          -- how many more invocations it would take now
    in_flight int NOT NULL DEFAULT 0,
    lag_ms    real NOT NULL DEFAULT 0,
    beat_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 20);

-- What is under way. --------------------------------------------------------------------------------------------

CREATE TABLE invocation (
    id                uuid PRIMARY KEY,
    created_at        timestamptz NOT NULL DEFAULT now(),
    modified_at       timestamptz NOT NULL DEFAULT now(),
    status            text NOT NULL
        CHECK (status IN ('scheduled', 'pending', 'ready', 'running', 'suspended', 'backing-off', 'paused')),
    owner             uuid,                 -- the engine that drives it; an exclusive one is its key's owner's
    service           text NOT NULL,
    handler           text NOT NULL,
    key               text,
    mode              text NOT NULL CHECK (mode IN ('service', 'exclusive', 'shared')),
    queue             text NOT NULL,
    deployment        text,                 -- the code of its first attempt, on which it stays
    caller            uuid,                 -- who awaits the result, and under which completion id
    caller_completion int,
    input             bytea NOT NULL,       -- entry 0 of the journal, framed
    idempotency_key   text,
    due_at            timestamptz,          -- scheduled: not before; backing off: the next attempt
    waits             int[],                -- suspended: the completion ids that may let it go on
    retries           int NOT NULL DEFAULT 0,  -- failed attempts of this stretch: against the policy's maximum
    stuck             int NOT NULL DEFAULT 0,  -- failed attempts since the last stored command: what ctx.run counts
    stuck_since       timestamptz,             -- the first of those
    crashes           int NOT NULL DEFAULT 0,  -- engines that died while driving it
    failure           jsonb                 -- the last failed attempt: code, message, stacktrace, related command
) WITH (fillfactor = 60);

-- Which engine drives what: rescue and the lost-hint poll read it, so that invocation needs no index on owner.
CREATE TABLE claimed (
    engine     uuid NOT NULL,
    invocation uuid NOT NULL,
    PRIMARY KEY (engine, invocation)
);

-- The overflow path: work that no engine was given at birth. A row is an invocation or (invocation null) a key.
CREATE SEQUENCE ready_position CACHE 1;
CREATE TABLE ready (
    queue      text NOT NULL,
    position   bigint NOT NULL DEFAULT nextval('ready_position'),
    invocation uuid,
    service    text NOT NULL,
    key        text,
    deployment text,                         -- null: any engine that has the service's newest code
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (queue, position)
);

-- A row exists while the key has an inbox or an engine leases it; an owner's death, and its own rest, free it.
-- owner null: a ready row will find it, or the head of its inbox is parked (suspended, backing off, paused).
CREATE TABLE object_key (
    service   text NOT NULL,
    key       text NOT NULL,
    owner     uuid,
    queue     text NOT NULL,
    leased_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, key)
) WITH (fillfactor = 40);
CREATE INDEX object_key_owner ON object_key (owner);

-- CACHE 1, drawn while the key's row is locked: a cached sequence reorders.
CREATE SEQUENCE inbox_position CACHE 1;
CREATE TABLE inbox (
    service    text NOT NULL,
    key        text NOT NULL,
    position   bigint NOT NULL,
    invocation uuid NOT NULL,
    PRIMARY KEY (service, key, position)
);

CREATE TABLE state (
    service text NOT NULL,
    key     text NOT NULL,
    name    text NOT NULL,
    value   bytea NOT NULL,
    PRIMARY KEY (service, key, name)
);

-- One row per invocation and flush: framed bytes of the protocol's messages, `count` of them from index `first`.
CREATE TABLE journal (
    invocation uuid NOT NULL,
    first      int NOT NULL,
    count      int NOT NULL,
    frames     bytea NOT NULL,
    day        date NOT NULL DEFAULT CURRENT_DATE,
    PRIMARY KEY (invocation, first, day)
) PARTITION BY RANGE (day);

-- slot: a completion id for a sleep; -1 starts a delayed send; -2 is the next attempt of a backing-off one.
CREATE TABLE timer (
    due        timestamptz NOT NULL,
    invocation uuid NOT NULL,
    slot       int NOT NULL,
    PRIMARY KEY (due, invocation, slot)
);

-- The one way into an invocation. slot: a completion id, or a verb below zero.
CREATE TABLE mail (
    target uuid NOT NULL,
    slot   int NOT NULL,
    frame  bytea NOT NULL,
    PRIMARY KEY (target, slot)
);

-- Who else awaits a result: callers that came with the same idempotency key.
CREATE TABLE waiter (
    invocation uuid NOT NULL,
    caller     uuid NOT NULL,
    completion int NOT NULL,
    PRIMARY KEY (invocation, caller, completion)
);

-- An idempotent invocation's id is a function of its key; the token says which submission was first.
CREATE TABLE idempotency (
    invocation uuid PRIMARY KEY,
    token      uuid NOT NULL,
    expires_at timestamptz                   -- null while it runs
);

-- History. ------------------------------------------------------------------------------------------------------

CREATE TABLE done (
    id              uuid NOT NULL,
    expires_on      date NOT NULL,
    created_at      timestamptz NOT NULL,
    completed_at    timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    outcome         text NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'killed')),
    service         text NOT NULL,
    handler         text NOT NULL,
    key             text,
    mode            text NOT NULL,
    deployment      text,
    caller          uuid,
    idempotency_key text,
    input           bytea NOT NULL,
    entries         int NOT NULL,
    frames          bytea NOT NULL,          -- the journal's last flush, which needs no row of its own
    result          bytea NOT NULL,          -- the Output, framed
    failure         jsonb,
    PRIMARY KEY (id, expires_on)
) PARTITION BY RANGE (expires_on);
-- "The latest": of 200,000 rows 0.05 ms instead of 32 (and the more, the worse); inserting them costs the same.
CREATE INDEX done_created ON done (created_at);

-- The registry. ---------------------------------------------------------------------------------------------------

CREATE TABLE deployment (
    id         text PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('module', 'http')),
    location   text NOT NULL,                -- module:attribute, or a URL
    manifest   jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE service (
    name        text PRIMARY KEY,
    type        text NOT NULL CHECK (type IN ('SERVICE', 'VIRTUAL_OBJECT', 'WORKFLOW')),
    deployment  text NOT NULL REFERENCES deployment (id),
    revision    int NOT NULL DEFAULT 1,
    modified_at timestamptz NOT NULL DEFAULT now()
);

-- Guards: functions that raise, because in a pipeline an empty answer stops nothing. ---------------------------------

-- Every transaction of an engine begins with it. NO KEY UPDATE: it excludes the rescuer, a redo of an own flush
-- whose end is unknown, and nobody else. Returns the transaction's id, for pg_xact_status after a lost answer.
CREATE FUNCTION fence(engine_id uuid) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM engine WHERE id = engine_id AND alive FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'engine % is dead', engine_id USING ERRCODE = 'PF001';
    END IF;
    RETURN pg_current_xact_id()::text;
END $$;

-- Whoever gives work to engines holds their rows, so that a rescuer cannot have looked already.
CREATE FUNCTION vouch(engine_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM (
            SELECT FROM engine WHERE id = ANY (engine_ids) AND alive ORDER BY id FOR KEY SHARE
        ) AS living) <> cardinality(engine_ids) THEN
        RAISE EXCEPTION 'an engine that was given work is dead' USING ERRCODE = 'PF002';
    END IF;
END $$;

CREATE FUNCTION expect(what text, actual bigint, wanted bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF actual IS DISTINCT FROM wanted THEN
        RAISE EXCEPTION '%: % rows, expected %', what, actual, wanted USING ERRCODE = 'PF003';
    END IF;
END $$;

-- Due timers in order, for one transaction at a time: its lock is the mutex, so there is no leader to lose.
CREATE FUNCTION take_due(batch int)
RETURNS TABLE (id uuid, slot int, mode text, queue text, service text, key text) LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('perdure timers')) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH due AS (
        SELECT timer.due, timer.invocation, timer.slot FROM timer WHERE timer.due <= clock_timestamp()
        ORDER BY timer.due, timer.invocation LIMIT batch
    ), taken AS (
        DELETE FROM timer USING due
        WHERE timer.due = due.due AND timer.invocation = due.invocation AND timer.slot = due.slot
        RETURNING timer.due, timer.invocation, timer.slot
    )
    SELECT invocation.id, taken.slot, invocation.mode, invocation.queue, invocation.service, invocation.key
    FROM taken JOIN invocation ON invocation.id = taken.invocation
    ORDER BY taken.due, taken.invocation;
END $$;

-- History goes by partition, a day at a time; what was not foreseen lands in the default one and is swept by rows.
CREATE TABLE journal_default PARTITION OF journal DEFAULT;
CREATE TABLE done_default PARTITION OF done DEFAULT;

CREATE FUNCTION ensure_partitions(days_ahead int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    made int := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('perdure partitions'));
    FOREACH parent IN ARRAY ARRAY['journal', 'done'] LOOP
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
