-- Sends from inside an application's own transaction. `perdure_send` puts a row into the outbox and does nothing else:
-- it locks no key for as long as that transaction likes, and its commit notifies nobody. A relay moves the rows on.

-- CACHE 1: what is sent after another transaction's commit was seen stands behind what that one sent.
CREATE SEQUENCE outbox_position CACHE 1;
CREATE TABLE outbox (
    position        bigint PRIMARY KEY,
    id              uuid NOT NULL,           -- of the invocation that it becomes
    service         text NOT NULL,
    handler         text NOT NULL,
    key             text,
    payload         bytea NOT NULL,
    idempotency_key text,
    due_at          timestamptz,
    sent_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Whoever was given the id may ask for it as soon as the application has committed.
CREATE INDEX outbox_id ON outbox (id);

-- An id as people and programs write it: see perdure.protocol.ids.
CREATE FUNCTION perdure_invocation_id(id uuid) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    alphabet constant text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    bits constant bit(128) := ('x' || replace(id::text, '-', ''))::bit(128);
    number numeric := substring(bits FROM 1 FOR 32)::bigint * 79228162514264337593543950336  -- 2^96
                    + substring(bits FROM 33 FOR 48)::bigint * 281474976710656::numeric       -- 2^48
                    + substring(bits FROM 81 FOR 48)::bigint;
    digits bigint;
    text text := '';
BEGIN
    FOR part IN 1..3 LOOP  -- ten digits at a time fit into a bigint, the last two are left
        digits := number % 839299365868340224;  -- 62^10
        number := div(number, 839299365868340224);
        FOR digit IN 1..CASE part WHEN 3 THEN 2 ELSE 10 END LOOP
            text := substr(alphabet, (digits % 62)::int + 1, 1) || text;
            digits := digits / 62;
        END LOOP;
    END LOOP;
    RETURN 'inv_1' || text;
END $$;

-- What can be known to be wrong now is refused now, in the words of the ingress: the application learns it at once.
-- The rest (does the payload fit the handler's schema?) the relay finds, and it becomes a failed invocation.
CREATE FUNCTION perdure_send_bytes(
    service text, handler text, payload bytea DEFAULT NULL, key text DEFAULT NULL, delay interval DEFAULT NULL,
    idempotency_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_variable
DECLARE
    body constant bytea := coalesce(payload, '');
    name text;
    value text;
    type text;
    found jsonb;
    id uuid;
BEGIN
    SELECT known.type,
           described.entry - 'handlers' || jsonb_path_query_first(
               described.entry, '$.handlers[*] ? (@.name == $name)', jsonb_build_object('name', handler))
    INTO type, found
    FROM service AS known JOIN deployment ON deployment.id = known.deployment,
         jsonb_path_query_first(deployment.manifest, '$.services[*] ? (@.name == $name)',
                                jsonb_build_object('name', service)) AS described (entry)
    WHERE known.name = service;
    IF type IS NULL THEN
        RAISE EXCEPTION 'There is no service "%".', service USING ERRCODE = 'undefined_object',
            HINT = '`manage.py services` lists what is registered, `manage.py register MODULE:APP` adds to it.';
    ELSIF found IS NULL THEN
        RAISE EXCEPTION 'The service "%" has no handler "%".', service, handler USING ERRCODE = 'undefined_object',
            HINT = '`manage.py services` lists the handlers of each service.';
    ELSIF coalesce(found -> 'ingressPrivate', 'false') = 'true' THEN
        RAISE EXCEPTION '%/% is private: only other handlers may call it.', service, handler
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF type = 'WORKFLOW' THEN
        RAISE EXCEPTION 'Workflows are not supported yet.' USING ERRCODE = 'feature_not_supported';
    ELSIF type = 'SERVICE' AND key IS NOT NULL THEN
        RAISE EXCEPTION '"%" is no object: "%" takes no key.', service, handler
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF type <> 'SERVICE' AND key IS NULL THEN
        RAISE EXCEPTION '"%" is an object: "%" needs a key.', service, handler
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR name, value IN VALUES ('A key', key), ('An idempotency key', idempotency_key) LOOP
        IF value = '' OR octet_length(value) > 512 THEN
            RAISE EXCEPTION '% must not be empty, and may have 512 bytes of UTF-8: this one has %.',
                name, octet_length(value) USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    IF octet_length(body) > 10485760 THEN
        RAISE EXCEPTION 'A payload may have 10485760 bytes, this one has %.', octet_length(body)
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF delay > interval '3650 days' THEN
        RAISE EXCEPTION 'The delay % is too long: it may be ten years.', delay
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF idempotency_key IS NULL THEN  -- milliseconds and 80 random bits, as every fresh id: see perdure.protocol.ids
        id := (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
               || left(gen_random_uuid()::text, 8) || right(gen_random_uuid()::text, 12))::uuid;
    ELSE
        SELECT substr(encode(sha256(string_agg(int4send(octet_length(part)) || part, '' ORDER BY nth)), 'hex'), 1, 32)
        INTO id
        FROM unnest(ARRAY['ik', service, key, handler, idempotency_key]) WITH ORDINALITY AS given (text, nth),
             convert_to(given.text, 'UTF8') AS part
        WHERE given.text IS NOT NULL;
    END IF;
    -- First the transaction's id, then the position: whoever has drawn one is known to have done so (see store/outbox).
    PERFORM pg_current_xact_id();
    INSERT INTO outbox (position, id, service, handler, key, payload, idempotency_key, due_at)
    VALUES (nextval('outbox_position'), id, service, handler, key, body, idempotency_key,
            CASE WHEN delay > interval '0' THEN clock_timestamp() + delay + interval '999 microseconds' END);
    RETURN perdure_invocation_id(id);
END $$;

CREATE FUNCTION perdure_send(
    service text, handler text, payload jsonb DEFAULT NULL, key text DEFAULT NULL, delay interval DEFAULT NULL,
    idempotency_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    RETURN perdure_send_bytes(service, handler, convert_to(payload::text, 'UTF8'), key, delay, idempotency_key);
END $$;

-- They run with the rights of whoever migrated, so nothing that a caller has in its path may be found by them; and they
-- are for nobody until it is said: GRANT EXECUTE ON FUNCTION perdure_send, perdure_send_bytes TO my_application.
DO $$
DECLARE
    sends regprocedure;
BEGIN
    FOR sends IN SELECT oid FROM pg_proc
        WHERE proname IN ('perdure_send', 'perdure_send_bytes') AND pronamespace = current_schema()::regnamespace
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', sends, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', sends);
    END LOOP;
END $$;

-- What was sent, in order, for one transaction at a time: its lock is the mutex, so there is no leader to lose. At most
-- `batch` messages and about 4 MB. `inside`: those of the named keys only; else all but those.
CREATE FUNCTION take_outbox(settled bigint, batch int, services text[], keys text[], inside boolean)
RETURNS SETOF outbox LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('perdure outbox')) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH first AS (
        SELECT outbox.position, sum(octet_length(payload)) OVER (ORDER BY outbox.position) - octet_length(payload) AS before
        FROM outbox
        WHERE outbox.position > settled AND inside = EXISTS (
            SELECT FROM unnest(services, keys) AS named (service, key)
            WHERE named.service = outbox.service AND named.key = outbox.key
        )
        ORDER BY outbox.position LIMIT batch
    ), taken AS (
        DELETE FROM outbox USING first
        WHERE outbox.position = first.position AND first.before < 4000000
        RETURNING outbox.*
    )
    SELECT * FROM taken ORDER BY taken.position;
END $$;
