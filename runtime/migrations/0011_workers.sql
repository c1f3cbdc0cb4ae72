-- Looking after those who work: who takes nothing new, how busy they are, and what each process has counted.

-- Drained: it takes nothing new until somebody resumes it. That of an engine dies with it; that of a queue is for every
-- engine that serves it, also for one that starts later.
ALTER TABLE engine ADD COLUMN drained_at timestamptz;
CREATE TABLE drained_queue (
    queue      text PRIMARY KEY,
    drained_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE heartbeat
    ADD COLUMN leases         int NOT NULL DEFAULT 0,   -- keys in memory
    ADD COLUMN claimed_per_s  real NOT NULL DEFAULT 0,  -- taken from the queue, over the last seconds
    ADD COLUMN finished_per_s real NOT NULL DEFAULT 0;

-- The oldest that waits in each queue, however many stand behind it: the queues are walked over, not their rows.
CREATE VIEW oldest_ready AS
WITH RECURSIVE known AS (
    (SELECT queue FROM ready ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT ready.queue FROM ready WHERE ready.queue > known.queue ORDER BY ready.queue LIMIT 1)
    FROM known WHERE known.queue IS NOT NULL
)
SELECT known.queue, oldest.since, oldest.service
FROM known, LATERAL (
    SELECT since, service FROM ready WHERE ready.queue = known.queue ORDER BY position LIMIT 1
) AS oldest;

-- What a process has counted since it began, for /metrics. Of processes that have gone silent the counts are added up
-- in the row of the zero id, so that the sum over all rows never goes down.
CREATE TABLE tally (
    process uuid PRIMARY KEY,
    told_at timestamptz NOT NULL DEFAULT now(),
    counts  jsonb NOT NULL
) WITH (fillfactor = 20);

CREATE OR REPLACE VIEW perdure_sql.sys_engine AS
SELECT engine.id, engine.host, engine.pid, engine.queues, engine.deployments, engine.alive, engine.started_at,
       engine.ended_at, heartbeat.attached, heartbeat.room, heartbeat.in_flight, heartbeat.lag_ms,
       heartbeat.beat_at, engine.drained_at, heartbeat.leases, heartbeat.claimed_per_s, heartbeat.finished_per_s
FROM engine LEFT JOIN heartbeat ON heartbeat.engine = engine.id;
