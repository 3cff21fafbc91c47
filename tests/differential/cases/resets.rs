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
fn a_discard_is_for_good_however_its_batch_goes_on() {
    same(&[
        // The end of a block that is none, and then an error.
        r"
        a with timezone = Asia/Tokyo
        b with options = -c timezone=Europe/Rome
        a: \parse - DISCARD ALL \bind - - \execute - 0 \parse - COMMIT \bind - - \execute - 0 \parse - SELEC \sync
        c: SHOW timezone
        b: SHOW timezone
        a: SHOW timezone",
        r"
        a with timezone = Asia/Tokyo
        b with timezone = Asia/Tokyo
        a: \parse - DISCARD ALL \bind - - \execute - 0 \parse - ROLLBACK \bind - - \execute - 0 \sync
        b: SHOW timezone
        c: SHOW timezone
        a: SHOW timezone",
        // A block that is rolled back later.
        r"
        a with timezone = Asia/Tokyo
        b with timezone = Asia/Tokyo
        a: \parse - DISCARD ALL \bind - - \execute - 0 \parse - BEGIN \bind - - \execute - 0 \sync
        a: ROLLBACK
        b: SHOW timezone
        a: SHOW timezone",
        // What cannot run in a transaction.
        r"
        a with timezone = Asia/Tokyo
        a: \parse - DISCARD ALL \bind - - \execute - 0 \parse - VACUUM items \bind - - \execute - 0 \sync
        a: SHOW timezone",
        // What it has changed in the same write.
        r"
        a with timezone = Asia/Tokyo
        a: \query SET timezone = 'UTC' \parse - DISCARD ALL \bind - - \execute - 0 \parse - SELEC \sync
        a: SHOW timezone",
        r"
        a with timezone = Asia/Tokyo
        a: SET work_mem = '5MB'
        a: \parse - DISCARD ALL \bind - - \execute - 0 \parse - SELEC \sync \query SELECT repeat('x', 100000)
        a: SHOW timezone",
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

#[test]
fn a_reset_in_a_block_leaves_its_kind_open() {
    same(&[r"
        a with options = -c search_path=side,\ public -c intervalstyle=iso_8601
        a: BEGIN
        a: RESET ALL
        a: SET TRANSACTION ISOLATION LEVEL REPEATABLE READ
        a: SHOW search_path
        a: COMMIT
        b: SHOW search_path
        a: SELECT count(*) FROM items"]);
}

/// What a reset is sent as is a simple query still.
#[test]
fn a_simple_query_that_resets_leaves_no_portal() {
    same(&[r"
        b with options = -c work_mem=5MB
        b: BEGIN
        b: RESET ALL
        b: \execute - 3 \sync
        b: ROLLBACK
        b: BEGIN
        b: \parse - SELECT 1 \bind - - \sync
        b: RESET work_mem
        b: \execute - 0 \sync
        b: ROLLBACK
        b: BEGIN
        b: SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;
        b: \describe P - \sync
        b: ROLLBACK
        b: SHOW work_mem"]);
}
