//! What stays on the server of its client, and is gone with it.

use super::same;

#[test]
fn temporary_tables_are_their_clients_own() {
    same(&[
        r"
        a: CREATE TEMP TABLE scratch (x int)
        a: INSERT INTO scratch VALUES (1), (2)
        b: SELECT * FROM scratch
        a: SELECT count(*) FROM scratch
        a: BEGIN; DROP TABLE scratch
        a: ROLLBACK
        a: SELECT count(*) FROM scratch
        a: \quit
        b: SELECT * FROM scratch
        a: SELECT * FROM scratch",
        r"
        a: BEGIN; CREATE TEMP TABLE scratch (x int) ON COMMIT DROP; INSERT INTO scratch VALUES (1)
        b: SELECT * FROM scratch
        a: SELECT * FROM scratch
        a: COMMIT
        a: SELECT * FROM scratch
        b: CREATE TEMP TABLE scratch AS SELECT 'b' AS y
        a: CREATE TEMP TABLE scratch AS SELECT 'a' AS x
        b: SELECT * FROM scratch
        a: SELECT * FROM scratch
        a: DISCARD TEMP
        a: SELECT * FROM scratch
        b: \vanish
        a: SELECT * FROM scratch",
        r"
        a: SELECT 1 AS x INTO TEMP scratch
        a: \parse s SELECT * FROM scratch \bind - s \execute - 0 \sync
        b: \parse s SELECT * FROM scratch \bind - s \execute - 0 \sync
        a: DISCARD ALL
        a: \parse s SELECT * FROM scratch \bind - s \execute - 0 \sync
        a: CREATE TEMP VIEW peek AS SELECT 1 AS x
        b: SELECT * FROM peek",
    ]);
}

#[test]
fn advisory_locks_are_held_by_their_client() {
    same(&[r"
        a: SELECT pg_try_advisory_lock(1)
        b: SELECT pg_try_advisory_lock(1)
        c: SELECT pg_advisory_unlock(1)
        a: SELECT pg_try_advisory_lock(1)
        a: SELECT pg_advisory_unlock(1)
        b: SELECT pg_try_advisory_lock_shared(1)
        a: SELECT pg_advisory_unlock(1)
        b: SELECT pg_try_advisory_lock_shared(1)
        c: SELECT pg_try_advisory_lock(1)
        b: \quit
        c: SELECT pg_try_advisory_lock(1), pg_try_advisory_lock(2)
        c: \vanish
        a: SELECT pg_try_advisory_lock(1), pg_try_advisory_lock(2)
        a: SELECT pg_advisory_unlock_all()
        b: BEGIN; SELECT pg_try_advisory_xact_lock(1)
        a: SELECT pg_try_advisory_xact_lock(1)
        b: COMMIT
        a: SELECT pg_try_advisory_xact_lock(1)
        c: SELECT pg_try_advisory_xact_lock(1)"]);
}

#[test]
fn what_a_text_prepares_and_executes_leaves_what_it_would_alone() {
    same(&[
        r"
        a: PREPARE t AS SELECT pg_try_advisory_lock(1); EXECUTE t
        b: SELECT pg_try_advisory_lock(1)
        c: SELECT pg_advisory_unlock(1)
        a: SELECT pg_advisory_unlock(1)
        a: DEALLOCATE t; PREPARE t AS SELECT pg_try_advisory_lock(2); EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE t
        c: SELECT pg_advisory_unlock(2)
        b: SELECT pg_try_advisory_lock(2)",
        r"
        a: PREPARE t AS SELECT set_config('work_mem', $1, false); EXECUTE t('77MB')
        b: SHOW work_mem
        a: SHOW work_mem
        a: PREPARE u AS SELECT set_config('myapp.tenant', '7', false); EXECUTE u
        b: SELECT coalesce(nullif(current_setting('myapp.tenant', true), ''), 'none')
        a: SHOW myapp.tenant",
        r"
        a: \parse p PREPARE t AS SELECT pg_try_advisory_lock(1) \parse e EXECUTE t \bind p p \bind e e \execute p 0 \execute e 0 \sync
        b: SELECT pg_try_advisory_lock(1)
        c: SELECT pg_advisory_unlock(1)
        a: DISCARD ALL
        a: \parse p PREPARE t AS SELECT pg_try_advisory_lock(2) \parse e EXECUTE t \bind e e \bind p p \execute p 0 \execute e 0 \sync
        c: SELECT pg_advisory_unlock(2)
        b: SELECT pg_try_advisory_lock(2)",
        r"
        a: PREPARE t AS SELECT true
        a: \parse p PREPARE t AS SELECT pg_try_advisory_lock(1) \parse d DEALLOCATE t \parse e EXECUTE t \bind e e \bind d d \execute d 0 \bind p p \execute p 0 \execute e 0 \sync
        b: SELECT pg_try_advisory_lock(1)
        c: SELECT pg_advisory_unlock(1)
        a: DISCARD ALL
        a: BEGIN
        a: \parse e EXECUTE t \bind e e \flush
        a: \query PREPARE t AS SELECT pg_try_advisory_lock(2) \execute e 0 \sync
        a: COMMIT
        c: SELECT pg_advisory_unlock(2)
        b: SELECT pg_try_advisory_lock(2)",
    ]);
}

#[test]
fn cursors_that_outlive_their_block_are_their_clients_own() {
    same(&[r"
        a: DECLARE h CURSOR WITH HOLD FOR SELECT id FROM items ORDER BY id
        a: FETCH 2 FROM h
        b: FETCH 2 FROM h
        a: FETCH 2 FROM h
        a: BEGIN; DECLARE i CURSOR WITH HOLD FOR SELECT 1; ROLLBACK
        a: FETCH 1 FROM i
        a: SELECT name FROM pg_cursors
        b: SELECT name FROM pg_cursors
        a: CLOSE h
        a: FETCH 1 FROM h
        b: DECLARE h CURSOR WITH HOLD FOR SELECT 'b'
        b: CLOSE ALL
        b: FETCH h"]);
}

#[test]
fn values_of_sequences_are_those_of_the_session() {
    same(&[
        r"
        a: SELECT currval('numbers')
        a: SELECT nextval('numbers')
        a: SELECT currval('numbers'), lastval()
        b: SELECT lastval()
        b: SELECT setval('others', 7), nextval('others')
        b: SELECT lastval()
        a: SELECT currval('numbers')
        a: DISCARD SEQUENCES
        a: SELECT lastval()",
        r"
        a: SELECT nextval('numbers')
        a: BEGIN
        a: \parse - DISCARD SEQUENCES \bind - - \sync
        a: SELECT nextval('others'), nextval('numbers')
        a: SELECT currval('numbers')
        a: \parse d DISCARD SEQUENCES \parse n SELECT nextval('numbers') \parse c SELECT currval('numbers') \bind - d \execute - 0 \bind - n \execute - 0 \bind - c \execute - 0 \sync
        a: SELECT currval('numbers')
        a: \bind - n \execute - 0 \bind - d \execute - 0 \bind - c \execute - 0 \sync
        a: ROLLBACK
        b: SELECT lastval()",
    ]);
}
