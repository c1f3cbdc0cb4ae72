-- What people find invocations by. Their cost was measured on 500 births and ends in one transaction each, beside a million
-- that have ended: CPU of the backend, and WAL, for one invocation of about 14 us and 1,020 bytes.
--
--   invocation_created            0.3 us  +  65 bytes   (it names nothing that changes, so updates stay HOT)
--   done_service, done_completed  0.7 us  +  70 bytes each
--   done_key                      3.5 us  + 150 bytes, for those that have a key
--   the others                    next to nothing, but for those that they are about

-- The newest, and the living of a list: with 100,000 of them 2 ms instead of 60. Who asks for few of many walks over it.
CREATE INDEX invocation_created ON invocation (created_at);

CREATE INDEX done_service ON done (service, created_at);
CREATE INDEX done_key ON done (key, created_at) WHERE key IS NOT NULL;
CREATE INDEX done_completed ON done (completed_at);
CREATE INDEX done_failed ON done (created_at) WHERE outcome <> 'succeeded' OR failure IS NOT NULL;
CREATE INDEX done_caller ON done (caller) WHERE caller IS NOT NULL;
CREATE INDEX done_idempotency ON done (idempotency_key) WHERE idempotency_key IS NOT NULL;
-- Those of a deployment stand together: few pages have two deployments'.
CREATE INDEX done_deployment ON done USING brin (deployment);
