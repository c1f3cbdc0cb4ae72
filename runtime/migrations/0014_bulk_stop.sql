-- Verbs by filter: which services they are about, so that tokens for these see them, and who has stopped one.
ALTER TABLE bulk
    ADD COLUMN services text[],   -- null: all
    ADD COLUMN stopped_by text;   -- before all were told
