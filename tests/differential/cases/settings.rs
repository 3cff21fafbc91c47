//! Settings.

use super::same;

#[test]
fn settings_of_a_transaction_end_with_it() {
    same(&[
        r"
        a: SET LOCAL work_mem = '5MB'
        a: SHOW work_mem
        a: BEGIN
        a: SET LOCAL work_mem = '5MB'
        a: SHOW work_mem
        b: SHOW work_mem
        a: COMMIT
        a: SHOW work_mem
        b: SHOW work_mem
        a: BEGIN; SET LOCAL timezone = 'Asia/Tokyo'
        a: SELECT '2020-02-03 04:05:06+00'::timestamptz
        b: SELECT '2020-02-03 04:05:06+00'::timestamptz
        a: SELECT 1/0
        a: ROLLBACK
        a: SHOW timezone
        b: SET LOCAL timezone = 'Asia/Tokyo'; SHOW timezone
        b: SHOW timezone",
        r"
        a: BEGIN
        a: SET LOCAL datestyle = 'German'
        a: SAVEPOINT one
        a: SET LOCAL datestyle = 'SQL'
        a: ROLLBACK TO one
        a: SHOW datestyle
        a: SELECT set_config('search_path', 'side', true)
        a: SELECT * FROM items
        a: COMMIT
        b: SELECT count(*) FROM items
        a: SELECT count(*) FROM items
        a: BEGIN; SET LOCAL search_path = side; SELECT * FROM items; COMMIT
        a: SELECT count(*) FROM items
        a: BEGIN; SET TRANSACTION READ ONLY; SHOW transaction_read_only
        b: SHOW transaction_read_only
        a: ROLLBACK",
    ]);
}

#[test]
fn settings_of_the_startup_hold_on_every_server() {
    same(&[r"
        a with timezone = Asia/Tokyo
        a with application_name = first
        a with search_path = side
        b with options = -c work_mem=5MB -c search_path=public,\ side
        b with datestyle = German
        c with client_encoding = LATIN1
        a: SELECT '2020-02-03 04:05:06+00'::timestamptz, current_setting('application_name')
        b: SELECT '2020-02-03 04:05:06+00'::timestamptz, current_setting('application_name')
        c: SELECT '2020-02-03 04:05:06+00'::timestamptz, current_setting('application_name')
        a: BEGIN
        b: SHOW work_mem
        a: SELECT * FROM items
        c: SELECT 'a' || chr(228)
        b: SELECT count(*) FROM items
        a: SET LOCAL timezone = 'UTC'
        a: COMMIT
        b: SHOW timezone
        a: SHOW timezone
        c: SHOW work_mem"]);
}

/// What cannot be reset would stay on a server for the next client.
#[test]
fn what_means_nothing_at_connect_reaches_nobody() {
    same(&[
        r"
        a with options = -c transaction_read_only=on -c seed=0.5
        b with TRANSACTION_READ_ONLY = tru
        c with seed = -1
        a: SELECT 1
        d: SELECT 1
        b: SELECT 1
        d: SELECT random() IN (0.9851677175347999, 0.825301858027981)
        c: SELECT 1
        d: INSERT INTO lines VALUES (9, 'nine')
        a: SHOW transaction_read_only
        a: SELECT random() IN (0.9851677175347999, 0.825301858027981)
        a: RESET ALL
        a: DISCARD ALL
        b: INSERT INTO lines VALUES (10, 'ten')",
        r"
        a with transaction_isolation = Read Committed
        a: SHOW transaction_isolation
        c: SELECT 1",
        r"
        a with seed = 7
        b with seed = half
        c with transaction_read_only = o
        d with options = -c transaction_isolation=chaos -c transaction_isolation=serializable
        a: SELECT 1
        b: SELECT 1
        c: SELECT 1
        d: SELECT 1",
        r"
        a with transaction_deferrable = maybe
        a: SELECT 1",
    ]);
}

/// With `standard_conforming_strings` off it takes a lock; with it on, it is a string.
#[test]
fn what_was_prepared_is_read_as_it_was_then() {
    same(&[
        r"
        a: SET escape_string_warning = off
        a: \parse s SELECT '\'', pg_try_advisory_lock(1) --' \sync
        b: BEGIN
        a: SET standard_conforming_strings = off
        a: \bind - s \execute - 0 \sync
        a: \parse t SELECT '\'', pg_try_advisory_lock(1) --' \sync
        a: \bind - s \execute - 0 \describe S t \sync
        b: COMMIT
        a: SET standard_conforming_strings = on
        c: BEGIN
        a: \bind - t \execute - 0 \sync
        b: SELECT pg_advisory_unlock(1)
        c: COMMIT
        a: SELECT pg_advisory_unlock(1)
        b: SELECT pg_try_advisory_lock(1)",
        r"
        a: SET escape_string_warning = off
        a: \parse off SET standard_conforming_strings = off \parse on SET standard_conforming_strings = on \sync
        a: \parse - SELECT '\'', pg_try_advisory_lock(1) --' \sync
        b: BEGIN
        a: \bind o off \execute o 0 \sync
        a: \bind - - \execute - 0 \sync
        b: SELECT pg_advisory_unlock(1)
        b: COMMIT
        a: BEGIN
        a: SET LOCAL standard_conforming_strings = on
        a: \parse u SELECT '\'', 2 --' \sync \bind - u \execute - 0 \sync
        a: \query ROLLBACK \parse v SELECT '\'', pg_try_advisory_lock(1) --' \sync
        b: BEGIN
        a: \bind - u \execute - 0 \sync
        a: \bind - v \execute - 0 \sync
        b: SELECT pg_advisory_unlock(1)
        b: COMMIT
        b: SELECT pg_try_advisory_lock(1)",
        r"
        a: SET escape_string_warning = off
        a: PREPARE q AS SELECT '\'', pg_try_advisory_lock(1) --'
        b: BEGIN
        a: SET standard_conforming_strings = off
        a: EXECUTE q
        a: \parse q SELECT 1 \sync
        a: \bind - q \execute - 0 \sync
        b: EXECUTE q
        b: ROLLBACK
        a: EXECUTE q
        a: \parse p SELECT '\'', 2 --' \sync
        a: EXECUTE p
        b: BEGIN
        a: SET standard_conforming_strings = on
        a: EXECUTE p
        a: EXECUTE q
        b: SELECT pg_advisory_unlock(1)
        b: COMMIT",
    ]);
}

#[test]
fn what_is_prepared_behind_a_change_of_how_it_is_read_is_read_so() {
    same(&[
        r"
        a: SET escape_string_warning = off
        a: \query SET standard_conforming_strings = off \parse s SELECT '\'', pg_try_advisory_lock(1) --' \sync
        b: SELECT 1
        a: \bind - s \execute - 0 \sync
        b: SELECT pg_advisory_unlock(1)
        c: SELECT pg_try_advisory_lock(1)",
        r"
        a: SET escape_string_warning = off
        a: \parse g SELECT set_config($1, $2, false) \bind - g standard_conforming_strings off \execute - 0 \sync \parse s SELECT '\'', pg_try_advisory_lock(1) --' \sync
        b: SELECT 1
        a: \bind - s \execute - 0 \sync
        b: SELECT pg_advisory_unlock(1)
        c: SELECT pg_try_advisory_lock(1)",
        r"
        a: SET escape_string_warning = off
        a: \parse g SELECT set_config($1, $2, false) \bind - g standard_conforming_strings off \execute - 0 \parse s SELECT '\'', pg_try_advisory_lock(1) --' \sync
        a: \bind - s \execute - 0 \sync
        b: SELECT pg_advisory_unlock(1)
        c: SELECT pg_try_advisory_lock(1)",
        r"
        a: SET escape_string_warning = off
        a: \query DO $$BEGIN SET standard_conforming_strings = off; END$$ \parse s SELECT '\'', pg_try_advisory_lock(1) --' \sync
        a: \bind - s \execute - 0 \sync
        b: SELECT pg_advisory_unlock(1)
        c: SELECT pg_try_advisory_lock(1)",
    ]);
}
