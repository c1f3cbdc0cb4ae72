-- Of a workflow's run: whose it is, so that the key's promises and values go when it does not answer any more.
ALTER TABLE idempotency ADD COLUMN service text, ADD COLUMN key text,
    ADD COLUMN is_again boolean NOT NULL DEFAULT false;  -- one that had expired was here before

CREATE TABLE promise (
    service      text NOT NULL,
    key          text NOT NULL,
    name         text NOT NULL,
    result       bytea,                      -- the Output, framed; null: somebody has asked for it
    completed_at timestamptz,
    PRIMARY KEY (service, key, name)
);

-- Who awaits a promise. It may outlast the promise's row, which only says what came of it.
CREATE TABLE promise_listener (
    service    text NOT NULL,
    key        text NOT NULL,
    name       text NOT NULL,
    caller     uuid NOT NULL,
    completion int NOT NULL,
    PRIMARY KEY (service, key, name, caller, completion)
);

-- Whoever asks something of a promise is answered here, in the transaction that records the question, and so is whoever
-- has been waiting for what it completes. The promises' rows are there and locked, and so are those of who waits for what
-- is completed, lest one falls asleep meanwhile; the first who completes one wins.
CREATE FUNCTION answer_promises(
    callers uuid[], slots int[], services text[], keys text[], names text[], questions text[], results bytea[],
    completed_before bytea
) RETURNS TABLE (caller uuid, completion int, result bytea, engine uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH asked AS (
        SELECT given.*, promise.result AS known
        FROM unnest(callers, slots, services, keys, names, questions, results) WITH ORDINALITY
             AS given (caller, slot, service, key, name, question, result, nth)
        JOIN promise USING (service, key, name)
    ), first AS (
        SELECT DISTINCT ON (service, key, name) service, key, name, result, nth
        FROM asked WHERE question = 'complete' AND known IS NULL ORDER BY service, key, name, nth
    ), completed AS (
        UPDATE promise SET result = first.result, completed_at = now() FROM first
        WHERE promise.service = first.service AND promise.key = first.key AND promise.name = first.name
    ), settled AS (
        SELECT asked.*, coalesce(asked.known, first.result) AS outcome, asked.nth IS NOT DISTINCT FROM first.nth AS is_first
        FROM asked LEFT JOIN first USING (service, key, name)
    ), listening AS (
        INSERT INTO promise_listener (service, key, name, caller, completion)
        SELECT service, key, name, caller, slot FROM settled WHERE question = 'get' AND outcome IS NULL
    ), heard AS (
        DELETE FROM promise_listener AS listener USING first
        WHERE listener.service = first.service AND listener.key = first.key AND listener.name = first.name
        RETURNING listener.caller, listener.completion, first.result
    ), answers AS (
        SELECT settled.caller, settled.slot, CASE settled.question
            WHEN 'complete' THEN CASE WHEN settled.is_first THEN '' ELSE completed_before END
            ELSE coalesce(settled.outcome, '') END AS frame
        FROM settled WHERE settled.question <> 'get' OR settled.outcome IS NOT NULL
        UNION ALL SELECT heard.caller, heard.completion, heard.result FROM heard
    ), sent AS (
        INSERT INTO mail (target, slot, frame)
        SELECT answers.caller, answers.slot, answers.frame
        FROM answers, LATERAL (SELECT FROM invocation WHERE invocation.id = answers.caller OFFSET 0) AS living
        ON CONFLICT (target, slot) DO NOTHING
        RETURNING mail.target, mail.slot, mail.frame
    ), woken AS (
        UPDATE invocation SET status = 'ready', waits = NULL, modified_at = now()
        FROM (SELECT sent.target, array_agg(sent.slot) AS slots FROM sent GROUP BY sent.target) AS news
        WHERE invocation.id = news.target AND invocation.id = ANY (ARRAY(SELECT sent.target FROM sent))
            AND invocation.status = 'suspended' AND invocation.waits && news.slots
        RETURNING invocation.id, mode, queue, service, key, deployment
    ), queued AS (
        INSERT INTO ready (queue, invocation, service, key, deployment)
        SELECT woken.queue, CASE WHEN woken.mode <> 'exclusive' THEN woken.id END, woken.service,
               CASE WHEN woken.mode = 'exclusive' THEN woken.key END, woken.deployment
        FROM woken
    )
    SELECT sent.target, sent.slot, sent.frame, coalesce(invocation.owner, object_key.owner)
    FROM sent JOIN invocation ON invocation.id = sent.target
    LEFT JOIN object_key ON invocation.mode = 'exclusive'
        AND object_key.service = invocation.service AND object_key.key = invocation.key;
END $$;
