-- A workflow's run may be sent in an application's own transaction, too: its id is made of its name and its key.

-- What can be known to be wrong now is refused now, in the words of the ingress: the application learns it at once.
-- The rest (does the payload fit the handler's schema?) the relay finds, and it becomes a failed invocation.
CREATE OR REPLACE FUNCTION perdure_send_bytes(
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
    is_run boolean;
    id uuid;
BEGIN
    SELECT known.type,
           described.entry - 'handlers' || jsonb_path_query_first(
               described.entry, '$.handlers[*] ? (@.name == $name)', jsonb_build_object('name', handler))
           || coalesce((SELECT options FROM service_options AS said WHERE said.service = known.name), '{}')
    INTO type, found
    FROM service AS known JOIN deployment ON deployment.id = known.deployment,
         jsonb_path_query_first(deployment.manifest, '$.services[*] ? (@.name == $name)',
                                jsonb_build_object('name', service)) AS described (entry)
    WHERE known.name = service;
    is_run := type = 'WORKFLOW' AND found ->> 'ty' IS DISTINCT FROM 'SHARED';
    IF type IS NULL THEN
        RAISE EXCEPTION 'There is no service "%".', service USING ERRCODE = 'undefined_object',
            HINT = '`manage.py services` lists what is registered, `manage.py register MODULE:APP` adds to it.';
    ELSIF found IS NULL THEN
        RAISE EXCEPTION 'The service "%" has no handler "%".', service, handler USING ERRCODE = 'undefined_object',
            HINT = '`manage.py services` lists the handlers of each service.';
    ELSIF coalesce(found -> 'ingressPrivate', 'false') = 'true' THEN
        RAISE EXCEPTION '%/% is private: only other handlers may call it.', service, handler
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF type = 'SERVICE' AND key IS NOT NULL THEN
        RAISE EXCEPTION '"%" is no object: "%" takes no key.', service, handler
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF type <> 'SERVICE' AND key IS NULL THEN
        RAISE EXCEPTION '"%" is %: "%" needs a key.',
            service, CASE type WHEN 'WORKFLOW' THEN 'a workflow' ELSE 'an object' END, handler
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF is_run AND idempotency_key IS NOT NULL THEN
        RAISE EXCEPTION '"%" is a workflow: "%" runs once for each key, and takes no idempotency key.', service, handler
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
    IF idempotency_key IS NULL AND NOT is_run THEN  -- milliseconds and 80 random bits, as every fresh id: see perdure.protocol.ids
        id := (lpad(to_hex(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
               || left(gen_random_uuid()::text, 8) || right(gen_random_uuid()::text, 12))::uuid;
    ELSE
        SELECT substr(encode(sha256(string_agg(int4send(octet_length(part)) || part, '' ORDER BY nth)), 'hex'), 1, 32)
        INTO id
        FROM unnest(CASE WHEN is_run THEN ARRAY['wf', service, key]
                    ELSE ARRAY['ik', service, key, handler, idempotency_key] END) WITH ORDINALITY AS given (text, nth),
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

-- As before: nothing that a caller has in its path may be found by it. (It is for whom it was for.)
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', 'perdure_send_bytes'::regproc::regprocedure,
                   current_schema());
END $$;
