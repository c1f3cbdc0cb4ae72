-- Verbs by filter: whom they mean is written down when they are asked for, and taken off as they are told.
CREATE TABLE bulk (
    id          uuid PRIMARY KEY,
    verb        text NOT NULL,                       -- as in cancel
    deployment  text NOT NULL,                       -- resume: on which code
    filter      jsonb NOT NULL,                      -- as it was said
    actor       text NOT NULL,
    role        text NOT NULL,
    origin      text NOT NULL,
    total       int NOT NULL,
    came        jsonb NOT NULL DEFAULT '{}',         -- what came of it, and of how many
    created_at  timestamptz NOT NULL DEFAULT now(),
    moved_at    timestamptz NOT NULL DEFAULT now(),  -- long ago and unfinished: whoever carried it out is gone
    finished_at timestamptz
);
CREATE INDEX bulk_unfinished ON bulk (moved_at) WHERE finished_at IS NULL;
CREATE INDEX bulk_created ON bulk (created_at);

CREATE TABLE bulk_item (
    bulk       uuid NOT NULL,
    invocation uuid NOT NULL,
    PRIMARY KEY (bulk, invocation)
);
