-- Deployments behind a URL: how they are reached, and how they want to be driven.
ALTER TABLE deployment
    ADD COLUMN http_version     text CHECK (http_version IN ('HTTP/1.1', 'HTTP/2')),
    ADD COLUMN protocol_version int,                       -- of the invocation protocol: chosen once, for ever
    ADD COLUMN protocol_mode    text CHECK (protocol_mode IN ('BIDI_STREAM', 'REQUEST_RESPONSE')),
    ADD COLUMN headers          jsonb NOT NULL DEFAULT '{}',  -- sent with every request; secrets, so shown nowhere
    ADD COLUMN sdk              text,
    ADD COLUMN metadata         jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN edits            int NOT NULL DEFAULT 0,    -- counts changes of the above: engines look at the sum
    ADD CONSTRAINT deployment_behind_url CHECK (
        kind <> 'http' OR (http_version IS NOT NULL AND protocol_version IS NOT NULL AND protocol_mode IS NOT NULL)
    );

CREATE OR REPLACE VIEW perdure_sql.sys_deployment AS
SELECT id, kind AS ty, location AS endpoint, (manifest ->> 'minProtocolVersion')::int AS min_service_protocol_version,
       (manifest ->> 'maxProtocolVersion')::int AS max_service_protocol_version, created_at,
       http_version, protocol_version AS service_protocol_version, protocol_mode, sdk, metadata
FROM deployment;
