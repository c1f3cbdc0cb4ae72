-- What operators set on a service goes before what its code says. It belongs to the service's name: it stays when
-- deployments come and go.
CREATE TABLE service_options (
    service text PRIMARY KEY,
    options jsonb NOT NULL DEFAULT '{}',     -- in the manifest's words: see runtime/core/options.py
    edits   int NOT NULL DEFAULT 0           -- of these and of the service's keys; part of the registry's version
);

-- A service that has keys is called with one of them. Several, so that one can follow another.
CREATE TABLE ingress_key (
    id         text PRIMARY KEY,             -- what the key begins with
    service    text NOT NULL,
    digest     bytea NOT NULL,               -- SHA-256 of the whole key, which is nowhere
    note       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL
);
CREATE INDEX ingress_key_service ON ingress_key (service);

-- The same in SQL: perdure_send asks whether a handler is private. One line of it is another; all else stays as it is.
DO $$
DECLARE
    before constant text := 'jsonb_build_object(''name'', handler))';
    after constant text := before
        || E'\n           || coalesce((SELECT options FROM service_options AS said WHERE said.service = known.name), ''{}'')';
    code constant text := pg_get_functiondef('perdure_send_bytes'::regproc);
BEGIN
    IF position(before IN code) = 0 THEN
        RAISE EXCEPTION 'perdure_send_bytes is not the one that this migration knows';
    END IF;
    EXECUTE replace(code, before, after);
END $$;

CREATE OR REPLACE VIEW perdure_sql.sys_service AS
SELECT service.name, service.revision,
       EXISTS (SELECT FROM jsonb_array_elements(entry.manifest -> 'handlers') AS handler
               WHERE NOT coalesce((said.options ->> 'ingressPrivate')::boolean,
                                  (handler ->> 'ingressPrivate')::boolean,
                                  (entry.manifest ->> 'ingressPrivate')::boolean, false)) AS public,
       service.deployment AS deployment_id, lower(service.type) AS ty, service.modified_at
FROM service JOIN deployment ON deployment.id = service.deployment
LEFT JOIN service_options AS said ON said.service = service.name
LEFT JOIN LATERAL (
    SELECT element AS manifest FROM jsonb_array_elements(deployment.manifest -> 'services') AS element
    WHERE element ->> 'name' = service.name
) AS entry ON true;
