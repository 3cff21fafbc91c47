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
