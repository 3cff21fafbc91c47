-- What stays on a server: temporary objects, held cursors, locks of the session; and what takes them away.
CREATE TABLE numbers AS SELECT n FROM generate_series(1, 20) AS n;
CREATE TEMP TABLE own (id int PRIMARY KEY, at_commit text);
INSERT INTO own SELECT n, 'row ' || n FROM numbers;
SELECT count(*) FROM own;
BEGIN;
DECLARE held SCROLL CURSOR WITH HOLD FOR SELECT n FROM numbers ORDER BY n;
FETCH 3 FROM held;
DECLARE lost CURSOR FOR SELECT 1;
COMMIT;
FETCH 2 FROM held;
FETCH BACKWARD 4 FROM held;
FETCH lost;
SELECT name, is_holdable FROM pg_cursors;
SELECT pg_advisory_lock(42), pg_try_advisory_lock(43);
SELECT objid, mode FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1;
DROP TABLE own;
CLOSE held;
SELECT pg_advisory_unlock(42), pg_advisory_unlock(42);
SELECT pg_advisory_unlock_all();
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
CREATE TEMP TABLE own (id int) ON COMMIT DROP;
SELECT * FROM own;
BEGIN;
CREATE TEMP TABLE own (id int) ON COMMIT DROP;
INSERT INTO own VALUES (1);
SELECT * FROM own;
COMMIT;
SELECT * FROM own;
BEGIN;
CREATE TEMP TABLE own (id int);
ROLLBACK;
SELECT * FROM own;
CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE own AS SELECT 7 AS id; END $$;
SELECT make();
SELECT * FROM own;
SELECT make();
CREATE TEMP SEQUENCE counter;
SELECT nextval('counter');
CREATE TEMP VIEW peek AS SELECT id * 2 AS twice FROM own;
TABLE peek;
DISCARD TEMP;
TABLE peek;
SELECT nextval('counter');
SELECT make();
DISCARD ALL;
SELECT * FROM own;
COPY numbers TO STDOUT;
COPY numbers FROM STDIN;
21
22
\.
COPY numbers FROM STDIN;
no number
\.
SELECT count(*) FROM numbers;
\copy (SELECT n FROM numbers WHERE n > 20 ORDER BY n) TO STDOUT
LISTEN news;
SELECT pg_listening_channels();
BEGIN;
LISTEN others;
ROLLBACK;
SELECT pg_listening_channels();
UNLISTEN *;
NOTIFY news, 'to nobody';
SELECT pg_listening_channels();
