-- Whom programs come in as. The secret itself is nowhere: only its digest, which is of 256 random bits.
CREATE TABLE token (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL,
    digest        bytea NOT NULL UNIQUE,
    role          smallint NOT NULL,
    services      text[],                     -- null: all
    sees_payloads boolean NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text NOT NULL,
    expires_at    timestamptz,                -- null: never
    revoked_at    timestamptz,
    last_used_at  timestamptz                 -- told at most once a minute
);

-- Sign-ins that failed lately, counted before the next is looked at.
CREATE INDEX audit_failed_sign_ins ON audit (at) WHERE verb = 'account.sign_in' AND result = 'denied';
