-- Split the catalog's alerts in PostgreSQL into ranges of files, which are ranges of time:
-- files are numbered as they are taken in. Run it once, while nothing indexes:
--
--   psql -v files_each=300000 -v parts=120 -f install/partition_catalog.sql DATABASE
--
-- 300,000 files are a month at Rubin's rate, 120 parts are ten years. What is there is moved; what
-- is beyond the last part goes to a default one. The service and `cutout_api index` notice nothing.
\if :{?files_each} \else \set files_each 300000 \endif
\if :{?parts} \else \set parts 120 \endif
BEGIN;
SELECT set_config('catalog.files_each', :'files_each', true);
SELECT set_config('catalog.parts', :'parts', true);
DO $$
DECLARE
    each bigint := current_setting('catalog.files_each')::bigint << 24;  -- a place is file << 24 | row
    whole text;
BEGIN
    FOR whole IN
        SELECT relname FROM pg_class
        WHERE relkind = 'r' AND relname ~ '^alert_[a-z]+$' AND pg_table_is_visible(oid)
    LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO %I', whole, whole || '_unsplit');
        EXECUTE format('CREATE TABLE %I (LIKE %I) PARTITION BY RANGE (place)', whole, whole || '_unsplit');
        FOR part IN 0 .. current_setting('catalog.parts')::int - 1 LOOP
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%s) TO (%s)',
                whole || '_p' || part, whole, part * each, (part + 1) * each
            );
        END LOOP;
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', whole || '_rest', whole);
        EXECUTE format('INSERT INTO %I SELECT * FROM %I', whole, whole || '_unsplit');
        EXECUTE format('DROP TABLE %I', whole || '_unsplit');
        EXECUTE format('ALTER TABLE %I ADD PRIMARY KEY (place)', whole);
        EXECUTE format('CREATE INDEX %I ON %I (alert_id)', whole || '_id', whole);
        EXECUTE format('CREATE INDEX %I ON %I (object_id, time)', whole || '_object', whole);
    END LOOP;
END
$$;
COMMIT;
ANALYZE;
