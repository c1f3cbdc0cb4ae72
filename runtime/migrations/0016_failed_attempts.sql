-- How many of an invocation's attempts have failed, from its birth on. What the policy counts (retries) begins anew
-- with each stretch of trying; this is for people.
ALTER TABLE invocation ADD COLUMN failed_attempts int NOT NULL DEFAULT 0;
ALTER TABLE done ADD COLUMN failed_attempts int NOT NULL DEFAULT 0;
UPDATE invocation SET failed_attempts = retries WHERE retries > 0;

-- As it was, but for retry_count.
CREATE OR REPLACE VIEW perdure_sql.sys_invocation AS
SELECT
    perdure_sql.format_id(invocation.id) AS id,
    perdure_sql.target(invocation.service, invocation.key, invocation.handler) AS target,
    invocation.service AS target_service_name,
    invocation.key AS target_service_key,
    invocation.handler AS target_handler_name,
    (SELECT lower(type) FROM service WHERE name = invocation.service) AS target_service_ty,
    invocation.mode,
    invocation.idempotency_key,
    CASE WHEN invocation.caller IS NULL THEN 'ingress' ELSE 'service' END AS invoked_by,
    perdure_sql.format_id(invocation.caller) AS invoked_by_id,
    coalesce((SELECT caller.service FROM invocation AS caller WHERE caller.id = invocation.caller),
             (SELECT max(caller.service) FROM done AS caller WHERE caller.id = invocation.caller))
        AS invoked_by_service_name,
    invocation.deployment AS pinned_deployment_id,
    1 + (SELECT coalesce(sum(count), 0)::int FROM journal WHERE journal.invocation = invocation.id) AS journal_size,
    invocation.created_at,
    invocation.modified_at,
    CASE WHEN invocation.status = 'scheduled' THEN invocation.due_at END AS scheduled_start_at,
    NULL::timestamptz AS completed_at,
    NULL::timestamptz AS expires_at,
    invocation.failed_attempts AS retry_count,
    CASE WHEN invocation.status = 'backing-off' THEN invocation.due_at END AS next_retry_at,
    invocation.failure ->> 'message' AS last_failure,
    (invocation.failure ->> 'code')::int AS last_failure_error_code,
    (invocation.failure ->> 'command')::int AS last_failure_related_command_index,
    invocation.failure ->> 'name' AS last_failure_related_command_name,
    invocation.status,
    NULL::text AS completion_result,
    NULL::text AS completion_failure,
    NULL::text AS outcome,
    invocation.queue,
    invocation.owner AS engine,
    invocation.crashes,
    invocation.waits AS suspended_waiting_for_completions,
    invocation.id AS raw_id
FROM invocation
UNION ALL
SELECT
    perdure_sql.format_id(done.id),
    perdure_sql.target(done.service, done.key, done.handler),
    done.service,
    done.key,
    done.handler,
    (SELECT lower(type) FROM service WHERE name = done.service),
    done.mode,
    done.idempotency_key,
    CASE WHEN done.caller IS NULL THEN 'ingress' ELSE 'service' END,
    perdure_sql.format_id(done.caller),
    coalesce((SELECT caller.service FROM invocation AS caller WHERE caller.id = done.caller),
             (SELECT max(caller.service) FROM done AS caller WHERE caller.id = done.caller)),
    done.deployment,
    done.entries,
    done.created_at,
    done.completed_at,
    NULL,
    done.completed_at,
    done.expires_at,
    done.failed_attempts,
    NULL,
    done.failure ->> 'message',
    (done.failure ->> 'code')::int,
    (done.failure ->> 'command')::int,
    done.failure ->> 'name',
    'completed',
    CASE WHEN done.outcome = 'succeeded' THEN 'success' ELSE 'failure' END,
    CASE WHEN done.outcome <> 'succeeded' THEN done.failure ->> 'message' END,
    done.outcome,
    NULL,
    NULL,
    0,
    NULL,
    done.id
FROM done;
