//! What functions, procedures, triggers and blocks do to a session unseen.

use super::same;

#[test]
fn functions_set_what_their_client_goes_on_with() {
    same(&[
        r"
        a: CREATE FUNCTION enter(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('myapp.tenant', t, false); SET work_mem = '7MB'; RETURN t; END$$
        b: SELECT coalesce(current_setting('myapp.tenant', true), ''), current_setting('work_mem')
        a: SELECT enter('1')
        b: SELECT coalesce(current_setting('myapp.tenant', true), ''), current_setting('work_mem')
        a: SELECT current_setting('myapp.tenant'), current_setting('work_mem')
        b: BEGIN; SELECT enter('2')
        b: SELECT current_setting('myapp.tenant'), current_setting('work_mem')
        b: ROLLBACK
        b: SELECT coalesce(current_setting('myapp.tenant', true), ''), current_setting('work_mem')
        a: BEGIN; SAVEPOINT s; SELECT enter('3'); ROLLBACK TO s; SELECT current_setting('myapp.tenant')
        a: COMMIT
        a: SELECT current_setting('myapp.tenant'), current_setting('work_mem')
        a: \parse p SELECT enter($1) \bind p p '4' \execute p 0 \sync
        b: SELECT coalesce(current_setting('myapp.tenant', true), ''), current_setting('work_mem')
        a: SELECT current_setting('myapp.tenant'), 1/0
        a: SELECT current_setting('myapp.tenant'), current_setting('work_mem')
        a: RESET ALL
        a: SELECT coalesce(current_setting('myapp.tenant', true), ''), current_setting('work_mem')
        a: DROP FUNCTION enter(text)",
        r"
        a: CREATE FUNCTION inside() RETURNS text LANGUAGE plpgsql SET work_mem = '9MB' AS $$BEGIN SET LOCAL timezone = 'Asia/Tokyo'; RETURN current_setting('work_mem') || ' ' || current_setting('timezone'); END$$
        a: SELECT inside()
        a: SELECT current_setting('work_mem'), current_setting('timezone')
        b: SELECT current_setting('work_mem'), current_setting('timezone')
        a: BEGIN; SELECT inside(); SELECT current_setting('work_mem'), current_setting('timezone')
        a: COMMIT
        a: SELECT current_setting('work_mem'), current_setting('timezone')
        a: DROP FUNCTION inside()",
    ]);
}

#[test]
fn what_leads_to_a_function_unsaid_sets_it_too() {
    same(&[
        r"
        a: CREATE FUNCTION enter(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('myapp.tenant', t, false); RETURN t; END$$
        a: CREATE VIEW entered AS SELECT enter('seen')
        b: SELECT * FROM entered
        a: SELECT coalesce(current_setting('myapp.tenant', true), '')
        b: SELECT current_setting('myapp.tenant')
        a: CREATE TABLE entering (id int, x text DEFAULT enter('default'))
        a: INSERT INTO entering VALUES (1)
        b: SELECT current_setting('myapp.tenant')
        a: SELECT current_setting('myapp.tenant')
        a: DROP VIEW entered; DROP TABLE entering; DROP FUNCTION enter(text)",
        r"
        a: CREATE FUNCTION on_write() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('myapp.tenant', NEW.line, false); RETURN NEW; END$$
        a: CREATE TRIGGER t BEFORE INSERT ON lines FOR EACH ROW EXECUTE FUNCTION on_write()
        b: INSERT INTO lines VALUES (200, 'b')
        a: SELECT coalesce(current_setting('myapp.tenant', true), '')
        b: SELECT current_setting('myapp.tenant')
        a: BEGIN; INSERT INTO lines VALUES (100, 'a')
        a: ROLLBACK
        a: SELECT coalesce(current_setting('myapp.tenant', true), '')
        b: SELECT current_setting('myapp.tenant')
        a: DROP TRIGGER t ON lines; DROP FUNCTION on_write()",
    ]);
}

#[test]
fn procedures_and_blocks_may_end_transactions() {
    same(&[
        r"
        a: CREATE PROCEDURE proceed(t text) LANGUAGE plpgsql AS $$BEGIN INSERT INTO lines VALUES (100, t); PERFORM set_config('myapp.tenant', t, false); COMMIT; INSERT INTO lines VALUES (101, t); PERFORM set_config('myapp.tenant', 'undone', false); ROLLBACK; END$$
        a: CALL proceed('a')
        b: SELECT coalesce(current_setting('myapp.tenant', true), '')
        a: SELECT current_setting('myapp.tenant')
        b: SELECT count(*) FROM lines WHERE id > 99
        b: \parse c CALL proceed('b') \bind c c \execute c 0 \sync
        a: SELECT current_setting('myapp.tenant')
        b: SELECT current_setting('myapp.tenant')
        b: BEGIN; CALL proceed('in a block')
        b: ROLLBACK
        b: SELECT current_setting('myapp.tenant')
        a: DROP PROCEDURE proceed(text)",
        r"
        a: INSERT INTO serials (word) VALUES ('a')
        b: \parse d DO $$BEGIN INSERT INTO lines VALUES (200, 'b'); SET work_mem = '5MB'; COMMIT; END$$ \bind d d \execute d 0 \sync
        a: SHOW work_mem
        b: SHOW work_mem
        b: DO $$BEGIN EXECUTE 'SET ' || 'work_mem' || ' = ' || quote_literal('6MB'); END$$
        a: SHOW work_mem
        b: SHOW work_mem
        b: DO $$BEGIN SET work_mem = '7MB'; RAISE EXCEPTION 'no'; END$$
        b: SHOW work_mem
        a: SELECT count(*) FROM lines WHERE id > 99",
    ]);
}

#[test]
fn what_functions_keep_is_their_clients_until_it_is_gone() {
    same(&[
        r"
        a: CREATE FUNCTION keep() RETURNS void LANGUAGE plpgsql AS $$BEGIN CREATE TEMP TABLE scratch AS SELECT 1 AS x; END$$
        a: SELECT keep()
        a: SELECT * FROM scratch
        a: DROP TABLE scratch
        b: SELECT * FROM scratch
        b: SELECT keep()
        b: DISCARD TEMP
        a: SELECT keep()
        a: \vanish
        b: SELECT * FROM scratch
        b: DROP FUNCTION keep()",
        r"
        a: CREATE FUNCTION lock() RETURNS bool LANGUAGE sql AS 'SELECT pg_try_advisory_lock(7)'
        a: SELECT lock()
        a: SELECT pg_advisory_unlock(7)
        b: SELECT lock()
        b: SELECT pg_advisory_unlock_all()
        a: SELECT lock()
        a: \quit
        b: SELECT lock()
        b: SELECT pg_advisory_unlock(7)
        b: DROP FUNCTION lock()",
    ]);
}
