-- Row-level security by a custom setting and by role, as applications with many tenants do it.
CREATE ROLE regression_tenant;
CREATE TABLE orders (id int PRIMARY KEY, tenant text NOT NULL DEFAULT current_setting('app.tenant'), item text);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON orders USING (tenant = current_setting('app.tenant', true));
GRANT ALL ON orders TO regression_tenant;

SELECT current_setting('app.tenant', true) IS NOT DISTINCT FROM NULL OR current_setting('app.tenant', true) = '';
SET ROLE regression_tenant;
SELECT * FROM orders;
SET app.tenant = 'one';
INSERT INTO orders (id, item) VALUES (1, 'a'), (2, 'b');
SELECT * FROM orders ORDER BY id;
SET app.tenant TO 'two';
INSERT INTO orders (id, item) VALUES (3, 'c');
INSERT INTO orders VALUES (4, 'one', 'not mine');
SELECT * FROM orders ORDER BY id;

-- For one transaction only, with and without an error.
BEGIN;
SET LOCAL app.tenant = 'one';
SELECT count(*), current_user FROM orders;
SAVEPOINT before;
SELECT set_config('app.tenant', 'nobody', true);
SELECT count(*) FROM orders;
ROLLBACK TO before;
SELECT count(*) FROM orders;
COMMIT;
SHOW app.tenant;
BEGIN;
SET app.tenant = 'one';
SELECT 1 / 0;
ROLLBACK;
SELECT current_setting('app.tenant'), current_user, session_user = current_user;
SELECT set_config('app.tenant', 'one', false), set_config('role', 'none', false);
SELECT current_user = session_user, current_setting('app.tenant');
RESET ROLE;

-- The same behind functions.
CREATE FUNCTION enter(name text) RETURNS text LANGUAGE plpgsql AS
$$ BEGIN PERFORM set_config('app.tenant', name, false); SET LOCAL work_mem = '7MB'; RETURN current_setting('work_mem'); END $$;
CREATE FUNCTION tenants() RETURNS bigint LANGUAGE sql SET search_path = public SET work_mem = '9MB' AS
$$ SELECT count(DISTINCT tenant) FROM orders $$;
SELECT enter('two');
SELECT current_setting('app.tenant'), current_setting('work_mem');
SELECT tenants(), current_setting('work_mem');
BEGIN;
SELECT enter('three');
ROLLBACK;
SHOW app.tenant;
DO $$ BEGIN SET app.tenant = 'by a block'; END $$;
SHOW app.tenant;
SELECT format('SET app.tenant = %L', 'tenant ' || n) FROM generate_series(1, 3) AS n \gexec
SHOW app.tenant
\gset seen_
\echo :seen_app.tenant
RESET app.tenant;
SELECT current_setting('app.tenant', true) = '';
DROP TABLE orders;
DROP ROLE regression_tenant;
