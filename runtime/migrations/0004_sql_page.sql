-- What operators read in SQL: the schema perdure_sql, one view per question, Restate's column names where it has them.
-- Described in docs/sql.md. Ids are shown as people write them; raw_id beside them is what the tables are indexed by.
-- Not named perdure: where a role of that name connects, its own schema comes before public in the search path.
CREATE SCHEMA perdure_sql;

-- Ids. -----------------------------------------------------------------------------------------------------------

-- inv_1 and 22 base62 digits, as perdure/protocol/ids.py writes them: ten digits at a time, for 62^10 fits a bigint.
CREATE FUNCTION perdure_sql.format_id(id uuid) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    alphabet CONSTANT text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    chunk CONSTANT numeric := 839299365868340224;
    bytes CONSTANT bytea := uuid_send(id);
    rest numeric := 0;
    part_size int;
    part bigint;
    digits text := '';
BEGIN
    FOR word IN 0..3 LOOP
        rest := rest * 4294967296 + (get_byte(bytes, word * 4)::bigint << 24) + (get_byte(bytes, word * 4 + 1) << 16)
            + (get_byte(bytes, word * 4 + 2) << 8) + get_byte(bytes, word * 4 + 3);
    END LOOP;
    FOREACH part_size IN ARRAY ARRAY[10, 10, 2] LOOP
        part := mod(rest, chunk);
        rest := div(rest, chunk);
        FOR digit IN 1..part_size LOOP
            digits := substr(alphabet, (part % 62)::int + 1, 1) || digits;
            part := part / 62;
        END LOOP;
    END LOOP;
    RETURN 'inv_1' || digits;
END $$;

-- The other way round, for `WHERE raw_id = parse_id('inv_1…')`; null for what is no id.
CREATE FUNCTION perdure_sql.parse_id(id text) RETURNS uuid LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    alphabet CONSTANT text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    number numeric := 0;
    hex text := '';
BEGIN
    IF id !~ '^inv_1[0-9A-Za-z]{22}$' THEN
        RETURN NULL;
    END IF;
    FOR digit IN 6..27 LOOP
        number := number * 62 + position(substr(id, digit, 1) IN alphabet) - 1;
    END LOOP;
    FOR word IN 1..4 LOOP
        hex := lpad(to_hex(mod(number, 4294967296)::bigint), 8, '0') || hex;
        number := div(number, 4294967296);
    END LOOP;
    RETURN CASE WHEN number = 0 THEN hex::uuid END;
END $$;

CREATE FUNCTION perdure_sql.target(service text, key text, handler text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN concat_ws('/', service, key, handler);

-- Null for what is no text.
CREATE FUNCTION perdure_sql.as_text(content bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL RESTRICTED AS $$
BEGIN
    RETURN convert_from(content, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire THEN
    RETURN NULL;
END $$;

-- Journals: the protocol's frames, read no further than a list of entries needs. --------------------------------------

CREATE FUNCTION perdure_sql.entry_type(code int) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN code = 64511 THEN 'Notification: Signal'
    ELSE CASE WHEN code >= 32768 THEN 'Notification: ' ELSE 'Command: ' END || coalesce(
        (ARRAY['Input', 'Output', 'GetLazyState', 'SetState', 'ClearState', 'ClearAllState', 'GetLazyStateKeys',
               'GetEagerState', 'GetEagerStateKeys', 'GetPromise', 'PeekPromise', 'CompletePromise', 'Sleep', 'Call',
               CASE WHEN code >= 32768 THEN 'CallInvocationId' ELSE 'OneWayCall' END, NULL, 'SendSignal', 'Run',
               'AttachInvocation', 'GetInvocationOutput', 'CompleteAwakeable'])[(code & 255) + 1],
        '0x' || to_hex(code))
END;

-- The fields of one message: a number in `value`, bytes in `content`. What is cut short ends there.
CREATE FUNCTION perdure_sql.fields(message bytea) RETURNS TABLE (number int, value bigint, content bytea)
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    size CONSTANT int := octet_length(message);
    at int := 0;
    byte int;
    shift int;
    head bigint;
    varint bigint;
BEGIN
    WHILE at < size LOOP
        head := NULL;
        LOOP -- once for the field's number and kind, once for its value or length
            varint := 0;
            shift := 0;
            LOOP
                EXIT WHEN at >= size OR shift > 56;
                byte := get_byte(message, at);
                at := at + 1;
                varint := varint | ((byte & 127)::bigint << shift);
                shift := shift + 7;
                EXIT WHEN byte < 128;
            END LOOP;
            EXIT WHEN head IS NOT NULL;
            head := varint;
            IF (head & 7) NOT IN (0, 2) THEN
                RETURN; -- none of ours
            END IF;
        END LOOP;
        number := head >> 3;
        value := varint;
        content := NULL;
        IF (head & 7) = 2 THEN
            value := NULL;
            content := substring(message FROM at + 1 FOR varint::int);
            at := at + varint::int;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- A whole journal as a list, from its frames in order. `completed`: whether what a command asked for is there.
CREATE FUNCTION perdure_sql.read_journal(frames bytea)
    RETURNS TABLE (index int, entry_type text, name text, completed boolean, invoked_id text, invoked_target text,
                   promise_name text, raw bytea)
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL RESTRICTED AS $$
DECLARE
    settled jsonb := '{}'; -- completion id -> the id of who was called, or null
    size CONSTANT int := octet_length(frames);
    at int := 0;
    code int;
    length int;
    texts text[];
    numbers bigint[];
    awaited text;
BEGIN
    WHILE at < size LOOP
        code := (get_byte(frames, at) << 8) + get_byte(frames, at + 1);
        length := (get_byte(frames, at + 4) << 24) + (get_byte(frames, at + 5) << 16)
            + (get_byte(frames, at + 6) << 8) + get_byte(frames, at + 7);
        IF code >= 32768 AND code <> 64511 THEN
            SELECT settled || jsonb_build_object(
                max(value) FILTER (WHERE number = 1), max(perdure_sql.as_text(content)) FILTER (WHERE number = 16)
            ) INTO settled FROM perdure_sql.fields(substring(frames FROM at + 9 FOR length)) AS field
            HAVING max(value) FILTER (WHERE number = 1) IS NOT NULL;
        END IF;
        at := at + 8 + length;
    END LOOP;
    index := 0;
    at := 0;
    WHILE at < size LOOP
        code := (get_byte(frames, at) << 8) + get_byte(frames, at + 1);
        length := (get_byte(frames, at + 4) << 24) + (get_byte(frames, at + 5) << 16)
            + (get_byte(frames, at + 6) << 8) + get_byte(frames, at + 7);
        raw := substring(frames FROM at + 9 FOR length);
        entry_type := perdure_sql.entry_type(code);
        texts := NULL;
        numbers := NULL;
        IF code < 32768 AND code <> 1024 AND code <> 1025 THEN -- an input and an output have values only
            -- Service, handler and key stand in fields 1, 2 and 5 (a send's: 6); the author's name for it in 12.
            SELECT ARRAY[max(perdure_sql.as_text(content)) FILTER (WHERE number = 1),
                         max(perdure_sql.as_text(content)) FILTER (WHERE number = 2 AND code IN (1037, 1038)),
                         max(perdure_sql.as_text(content)) FILTER (WHERE (code, number) IN ((1037, 5), (1038, 6))),
                         max(perdure_sql.as_text(content)) FILTER (WHERE number = 12)],
                   ARRAY[max(value) FILTER (WHERE number = 10), max(value) FILTER (WHERE number = 11)]
            INTO texts, numbers FROM perdure_sql.fields(raw) AS field;
        END IF;
        invoked_target := CASE WHEN code IN (1037, 1038)
            THEN perdure_sql.target(texts[1], nullif(texts[3], ''), texts[2]) END;
        invoked_id := CASE WHEN code IN (1037, 1038) THEN settled ->> numbers[1]::text END;
        promise_name := CASE WHEN code IN (1033, 1034, 1035) THEN texts[1] END;
        name := coalesce(nullif(texts[4], ''), invoked_target, texts[1], '');
        completed := CASE WHEN numbers[2] IS NOT NULL THEN settled ? numbers[2]::text END;
        RETURN NEXT;
        index := index + 1;
        at := at + 8 + length;
    END LOOP;
END $$;

-- The views. ------------------------------------------------------------------------------------------------------

-- Alive and ended together. What costs a look elsewhere (journal_size, who called) is looked for only when asked for.
CREATE VIEW perdure_sql.sys_invocation AS
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
    invocation.retries AS retry_count,
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
    0,
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

CREATE VIEW perdure_sql.sys_journal AS
SELECT perdure_sql.format_id(kept.id) AS id, entry.index, entry.entry_type, entry.name, entry.completed, entry.invoked_id,
       entry.invoked_target, entry.promise_name, entry.raw, 2 AS version, kept.id AS raw_id
FROM (
    SELECT id, input AS first, ''::bytea AS last FROM invocation
    UNION ALL
    SELECT id, input, frames || result FROM done
) AS kept,
LATERAL perdure_sql.read_journal(kept.first || coalesce(
    (SELECT string_agg(frames, NULL ORDER BY journal.first) FROM journal WHERE journal.invocation = kept.id), ''
) || kept.last) AS entry;

-- An exclusive invocation's place; the first one of a key has the key.
CREATE VIEW perdure_sql.sys_inbox AS
SELECT inbox.service AS service_name, inbox.key AS service_key, perdure_sql.format_id(inbox.invocation) AS id,
       inbox.position AS sequence_number,
       (SELECT created_at FROM invocation WHERE id = inbox.invocation) AS created_at,
       inbox.invocation AS raw_id
FROM inbox;

-- Keys that somebody has or waits for. `engine`: which has the key in memory, since when.
CREATE VIEW perdure_sql.sys_keyed_service_status AS
SELECT object_key.service AS service_name, object_key.key AS service_key,
       perdure_sql.format_id(holder.invocation) AS invocation_id,
       (SELECT count(*) FROM inbox WHERE inbox.service = object_key.service AND inbox.key = object_key.key)
           AS inbox_length,
       object_key.queue, object_key.owner AS engine, object_key.leased_at
FROM object_key LEFT JOIN LATERAL (
    SELECT invocation FROM inbox WHERE inbox.service = object_key.service AND inbox.key = object_key.key
    ORDER BY position LIMIT 1
) AS holder ON true;

CREATE VIEW perdure_sql.state AS
SELECT service AS service_name, key AS service_key, name AS key, perdure_sql.as_text(value) AS value_utf8, value
FROM state;

CREATE VIEW perdure_sql.sys_service AS
SELECT service.name, service.revision,
       EXISTS (SELECT FROM jsonb_array_elements(entry.manifest -> 'handlers') AS handler
               WHERE NOT coalesce((handler ->> 'ingressPrivate')::boolean,
                                  (entry.manifest ->> 'ingressPrivate')::boolean, false)) AS public,
       service.deployment AS deployment_id, lower(service.type) AS ty, service.modified_at
FROM service JOIN deployment ON deployment.id = service.deployment
LEFT JOIN LATERAL (
    SELECT element AS manifest FROM jsonb_array_elements(deployment.manifest -> 'services') AS element
    WHERE element ->> 'name' = service.name
) AS entry ON true;

CREATE VIEW perdure_sql.sys_deployment AS
SELECT id, kind AS ty, location AS endpoint, (manifest ->> 'minProtocolVersion')::int AS min_service_protocol_version,
       (manifest ->> 'maxProtocolVersion')::int AS max_service_protocol_version, created_at
FROM deployment;

-- Sends that are not due yet.
CREATE VIEW perdure_sql.sys_scheduled AS
SELECT perdure_sql.format_id(invocation.id) AS id,
       perdure_sql.target(invocation.service, invocation.key, invocation.handler) AS target,
       invocation.service AS target_service_name, invocation.key AS target_service_key,
       invocation.handler AS target_handler_name, timer.due AS scheduled_start_at, invocation.created_at,
       invocation.id AS raw_id
FROM timer JOIN invocation ON invocation.id = timer.invocation
WHERE timer.slot = -1;

-- Engines, the dead of the last day among them. What a beat tells is null for those.
CREATE VIEW perdure_sql.sys_engine AS
SELECT engine.id, engine.host, engine.pid, engine.queues, engine.deployments, engine.alive, engine.started_at,
       engine.ended_at, heartbeat.attached, heartbeat.room, heartbeat.in_flight, heartbeat.lag_ms,
       heartbeat.beat_at
FROM engine LEFT JOIN heartbeat ON heartbeat.engine = engine.id;

-- What waits for an engine, by queue.
CREATE VIEW perdure_sql.sys_queue AS
SELECT queue AS name, count(*) AS ready, min(since) AS oldest_ready_at FROM ready GROUP BY queue;

-- Who reads them. --------------------------------------------------------------------------------------------------

-- What a query may not mention: functions that do more than compute (in other schemas: all), PostgreSQL's own tables.
-- Every word of the text counts, in strings and comments too, so there is nothing that a query could hide behind; the
-- permissions of the role are what holds, this keeps away what every role may do (set_config, pg_advisory_lock).
CREATE FUNCTION perdure_sql.forbidden(query text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    WITH words AS MATERIALIZED (
        SELECT DISTINCT lower(found[1]) AS word
        FROM (
            SELECT regexp_matches(query, '[A-Za-z0-9_\u0080-\uFFFF]+', 'g')
            UNION ALL SELECT regexp_matches(query, '[A-Za-z0-9_$\u0080-\uFFFF]+', 'g')
        ) AS matches (found)
    )
    SELECT 'U&' WHERE query ~* 'u&["'']' -- a way to write a name without its letters
    UNION
    SELECT word FROM words JOIN pg_catalog.pg_proc ON proname = word::name
    WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v'
        AND proname NOT IN ('clock_timestamp', 'gen_random_uuid', 'random', 'timeofday')
    UNION
    SELECT word FROM words JOIN pg_catalog.pg_class ON relname = word::name
    WHERE relnamespace = 'pg_catalog'::regnamespace
    UNION
    SELECT word FROM words JOIN pg_catalog.pg_namespace ON lower(nspname) = word
    WHERE nspname = 'information_schema' OR (
        nspname NOT IN ('pg_catalog', 'perdure_sql') AND EXISTS (
            SELECT FROM pg_catalog.pg_proc JOIN words AS called ON lower(proname) = called.word
            WHERE pronamespace = pg_namespace.oid
        )
    )
$$;

-- The role perdure_reader, which may read the views and do nothing else, and what runs a query as that role:
-- read(query, most rows, most bytes), a row as JSON each, and a null at the end where it was cut.
--
-- Within a function that runs as its owner PostgreSQL lets nobody change roles, and within a stable one nothing runs
-- but a plain SELECT: no DO, SET, COPY, LOCK, FOR UPDATE, nor a second statement that would be anything else.
-- Whoever may create roles may call this, as often as he likes.
CREATE FUNCTION perdure_sql.set_up_reader() RETURNS void LANGUAGE plpgsql AS $setup$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'perdure_reader') THEN
        BEGIN
            CREATE ROLE perdure_reader NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- for another database, at the same moment
        END;
    END IF;
    IF NOT pg_catalog.pg_has_role('perdure_reader', 'USAGE') THEN
        EXECUTE format('GRANT perdure_reader TO %I', current_user);
    END IF;
    GRANT USAGE, CREATE ON SCHEMA perdure_sql TO perdure_reader;
    GRANT SELECT ON ALL TABLES IN SCHEMA perdure_sql TO perdure_reader;
    ALTER DEFAULT PRIVILEGES IN SCHEMA perdure_sql GRANT SELECT ON TABLES TO perdure_reader;
    DROP FUNCTION IF EXISTS perdure_sql.read(text, int, int);
    CREATE FUNCTION perdure_sql.read(query text, most_rows int, most_bytes int) RETURNS SETOF json
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = perdure_sql, pg_catalog, pg_temp AS $read$
    DECLARE
        forbidden text;
        found record;
        line json;
        room int := most_rows;
        space bigint := most_bytes;
    BEGIN
        SELECT min(word) INTO forbidden FROM perdure_sql.forbidden(query) AS word;
        IF forbidden IS NOT NULL THEN
            RAISE EXCEPTION '% may not be mentioned in a query', forbidden USING ERRCODE = 'PQ001';
        END IF;
        FOR found IN EXECUTE query LOOP
            line := to_json(found);
            room := room - 1;
            space := space - octet_length(line::text);
            IF room < 0 OR space < 0 THEN
                RETURN NEXT NULL;
                RETURN;
            END IF;
            RETURN NEXT line;
        END LOOP;
    END $read$;
    ALTER FUNCTION perdure_sql.read(text, int, int) OWNER TO perdure_reader;
    REVOKE ALL ON FUNCTION perdure_sql.read(text, int, int) FROM PUBLIC, perdure_reader; -- no query within a query
    EXECUTE format('GRANT EXECUTE ON FUNCTION perdure_sql.read(text, int, int) TO %s',
                   (SELECT nspowner::regrole FROM pg_catalog.pg_namespace WHERE nspname = 'perdure_sql'));
    REVOKE CREATE ON SCHEMA perdure_sql FROM perdure_reader;
END $setup$;

DO $$
BEGIN
    PERFORM perdure_sql.set_up_reader();
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'POST /query waits for a role that may create roles: SELECT perdure_sql.set_up_reader()';
END $$;
