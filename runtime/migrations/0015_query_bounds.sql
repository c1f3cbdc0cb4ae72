-- The role perdure_reader, which may read the views and do nothing else, and what runs a query as that role:
-- read(query, most rows, most bytes), a row as JSON each, and a null at the end where it was cut.
--
-- Within a function that runs as its owner PostgreSQL lets nobody change roles, and within a stable one nothing runs
-- but a plain SELECT: no DO, SET, COPY, LOCK, FOR UPDATE, nor a second statement that would be anything else.
-- Whoever may create roles may call this, as often as he likes.
CREATE OR REPLACE FUNCTION perdure_sql.set_up_reader() RETURNS void LANGUAGE plpgsql AS $setup$
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
        answer refcursor;
        one record;
        line json;
        twice text;
        room int := most_rows;
        space bigint := most_bytes;
    BEGIN
        SELECT min(word) INTO forbidden FROM perdure_sql.forbidden(query) AS word;
        IF forbidden IS NOT NULL THEN
            RAISE EXCEPTION '% may not be mentioned in a query', forbidden USING ERRCODE = 'PQ001';
        END IF;
        OPEN answer NO SCROLL FOR EXECUTE query;
        LOOP
            FETCH answer INTO one; -- each by itself: a FOR loop would hold 50 at once
            EXIT WHEN NOT FOUND;
            IF pg_column_size(one) > most_bytes THEN -- before it is written as JSON, which takes its size several times
                RAISE EXCEPTION 'a row is too large' USING ERRCODE = 'PQ002';
            END IF;
            line := to_json(one);
            IF octet_length(line::text) > most_bytes THEN
                RAISE EXCEPTION 'a row is too large' USING ERRCODE = 'PQ002';
            END IF;
            IF room = most_rows THEN
                SELECT name INTO twice FROM json_object_keys(line) AS name GROUP BY name HAVING count(*) > 1 LIMIT 1;
                IF twice IS NOT NULL THEN
                    RAISE EXCEPTION 'two columns are named "%"', twice USING ERRCODE = 'PQ003';
                END IF;
            END IF;
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
