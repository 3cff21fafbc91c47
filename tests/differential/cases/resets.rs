//! What drivers send to have a fresh session.

use super::same;

#[test]
fn reset_queries_of_drivers_leave_a_session_as_new() {
    same(&[
        r"
        a: \parse s SELECT 's' \sync
        a: SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;
        a: \bind - s \execute - 0 \sync
        b: DISCARD ALL
        a: DISCARD ALL
        a: \bind - s \execute - 0 \sync
        b: SELECT 1",
        r"
        a: CREATE TEMP TABLE scratch (x int); SELECT pg_try_advisory_lock(1)
        a: SET work_mem = '5MB'; PREPARE q AS SELECT 1
        a: DISCARD ALL
        b: SELECT * FROM scratch
        b: SHOW work_mem
        b: EXECUTE q
        b: SELECT pg_try_advisory_lock(1)
        a: SELECT * FROM scratch
        a: SHOW work_mem
        a: EXECUTE q",
        r"
        a: BEGIN
        a: DISCARD ALL
        b: SELECT 1
        a: ROLLBACK
        a: DISCARD ALL; SELECT 1
        a: SELECT 1; DISCARD ALL
        a: \parse - DISCARD ALL \bind - - \execute - 0 \sync
        a: \parse - SELECT 1 \bind - - \execute - 0 \parse - DISCARD ALL \bind - - \execute - 0 \sync
        b: ROLLBACK
        b: DISCARD PLANS
        b: DISCARD TEMP",
    ]);
}

#[test]
fn reset_queries_of_the_extended_protocol_are_answered_alike() {
    same(&[
        r"
        a: \parse s SELECT 's' \sync
        a: SET timezone = 'Asia/Tokyo'
        a: \parse - RESET ALL \bind - - \describe P - \execute - 1 \sync
        b: SELECT 1
        a: SHOW timezone
        a: \bind - s \execute - 0 \sync
        a: \parse - DISCARD ALL \describe S - \bind - - \execute - 0 \sync
        a: \bind - - \execute - 0 \sync
        b: DISCARD ALL
        a: \bind - s \execute - 0 \sync
        a: \bind - - \describe P - \execute - 0 \sync",
        r"
        a: SET work_mem = '5MB'
        a: \parse - SELECT pg_advisory_unlock_all() \describe S - \bind - - \describe P - \execute - 0 \sync
        a: \parse - SELECT pg_advisory_unlock_all() \bind - - \describe P - \execute - 1 \sync
        a: \parse - CLOSE ALL \bind - - \execute - 0 \sync
        a: \parse - UNLISTEN * \bind - - \execute - 0 \close P - \sync
        a: \parse - UNLISTEN * \bind - - \execute - 0 \sync
        a: SHOW work_mem
        a: \bind - - \execute - 0 \sync
        b: SELECT 1",
        r"
        a: CREATE TEMP TABLE scratch (x int); SELECT pg_try_advisory_lock(1)
        a: \parse - DISCARD ALL \bind - - \describe P - \execute - 0 \sync
        b: SELECT pg_try_advisory_lock(1)
        b: \parse - SELECT pg_advisory_unlock_all() \bind - - \describe P - \execute - 0 \sync
        a: SELECT * FROM scratch
        a: BEGIN
        a: \parse - RESET ALL \bind - - \execute - 0 \sync
        a: \parse - DISCARD ALL \bind - - \execute - 0 \sync
        a: ROLLBACK",
    ]);
}

#[test]
fn a_discard_behind_which_its_batch_fails_tells_no_more_than_it_should() {
    same(&[
        r"
        a with timezone = Asia/Tokyo
        a: \parse - DISCARD ALL \sync
        a: \bind - - \execute - 0 \bind - - NULL \execute - 0 \sync
        b: SELECT 1
        a: SHOW timezone",
        r"
        a with timezone = Asia/Tokyo
        a: SET timezone = 'Europe/Rome'
        a: \parse - DISCARD ALL \sync
        a: \bind - - \execute - 0 \bind - - NULL \execute - 0 \sync
        b: SELECT 1
        a: SHOW timezone",
    ]);
}
