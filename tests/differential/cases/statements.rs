//! Prepared statements.

use super::same;

#[test]
fn names_mean_each_clients_own_statement() {
    same(&[
        r"
        a: \parse s SELECT 'a says ' || $1 \sync
        b: \parse s SELECT 'b says ' || $1 \sync
        c: \bind - s x \execute - 0 \sync
        a: \bind - s x \execute - 0 \sync
        b: \describe S s \bind - s x \execute - 0 \sync
        a: BEGIN
        b: \bind - s y \execute - 0 \sync
        c: \parse s SELECT 'a says ' || $1 \bind - s z \describe P - \execute - 0 \sync
        a: \bind - s y \execute - 0 \sync
        a: \close S s \bind - s z \sync
        a: \bind - s z \sync
        a: COMMIT
        b: \close S s \parse s SELECT $1::int + 1 \describe S s \bind - s 4 \execute - 0 \sync
        a: \bind - s z \execute - 0 \sync
        c: \bind - s z \execute - 0 \sync
        b: \bind - s 5 \execute - 0 \sync",
        r"
        a: \parse s SELECT 1 \parse s SELECT 2 \sync
        a: \bind - s \execute - 0 \sync
        b: \parse s SELECT 3 \sync
        b: \parse s SELECT 4 \sync
        b: \bind - s \execute - 0 \sync
        a: \parse s SELECT 1 \sync
        a: \close S s \close S s \parse s SELECT 5 \bind - s \execute - 0 \sync",
    ]);
}

#[test]
fn the_unnamed_statement_is_each_clients_own() {
    same(&[r"
        a: \parse - SELECT 'a' || $1 \sync
        b: \parse - SELECT 'b' || $1 \sync
        a: \bind - - x \execute - 0 \sync
        b: \bind - - x \execute - 0 \sync
        c: \bind - - x \execute - 0 \sync
        c: \describe S - \sync
        a: \describe S - \sync
        a: SELECT 1
        a: \bind - - x \execute - 0 \sync
        b: \close S - \sync
        b: \bind - - x \execute - 0 \sync
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \sync
        b: SELECT 1
        a: \bind - - \execute - 0 \sync
        a: \parse - SELECT no_such \sync
        b: SELECT 1
        a: \bind - - \execute - 0 \sync
        a: \parse - SELECT 2 \sync \parse - SELECT 3 \bind - - \execute - 0 \sync
        a: \bind - - \execute - 0 \sync
        b: \parse - SELECT 4 \query SELECT 5 \bind - - \execute - 0 \sync"]);
}

#[test]
fn statements_of_batches_that_fail_are_as_far_as_they_came() {
    same(&[r"
        a: \parse bad SELECT no_such_column \sync
        a: \bind - bad \sync
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \parse late SELECT 'late' \sync
        a: \bind - late \execute - 0 \sync
        b: \parse late SELECT 'late' \bind - late \execute - 0 \sync
        a: \parse early SELECT 'early' \parse - SELECT 1/0 \bind - - \execute - 0 \close S early \sync
        b: SELECT 1
        a: \bind - early \execute - 0 \sync
        a: BEGIN
        a: \parse kept SELECT 'kept' \sync
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \sync
        a: \parse refused SELECT 'refused' \sync
        a: \bind - kept \execute - 0 \sync
        a: \close S kept \sync
        a: ROLLBACK
        a: \bind - kept \execute - 0 \sync
        a: \bind - refused \execute - 0 \sync
        b: \parse - SELECT 1/0 \bind - - \execute - 0 \parse x SELECT 1 \sync \parse x SELECT 2 \bind - x \execute - 0 \sync
        b: \bind - x \execute - 0 \sync \close S x \sync \bind - x \execute - 0 \sync \parse x SELECT 3 \sync"]);
}

#[test]
fn values_may_be_wrong_in_each_way() {
    same(&[r"
        a: \parse s SELECT $1::int, $2::text \sync
        b: \parse s SELECT $1::int, $2::text \sync
        a: \bind - s 1 \execute - 0 \sync
        a: \bind - s 1 x y \execute - 0 \sync
        b: \bind - s word x \execute - 0 \sync
        b: \bind - s NULL NULL \execute - 0 \sync
        a: \bind p s 1 x \bind p s 2 y \execute p 0 \sync
        a: \bind p s 1 x \close P p \bind p s 2 y \execute p 0 \sync
        b: \bind p s 1 x \sync \execute p 0 \sync
        a: \execute no_such 0 \sync \describe P no_such \sync \describe S no_such \sync
        a: \parse e - \sync
        a: \parse e -- nothing \bind - e \describe P - \execute - 0 \sync
        b: \parse m SELECT 1; SELECT 2 \sync"]);
}

#[test]
fn discarding_ends_a_clients_own_statements() {
    same(&[r"
        a: \parse s SELECT 'a' \parse - SELECT 'unnamed' \sync
        b: \parse s SELECT 'a' \sync
        a: DISCARD ALL
        b: \bind - s \execute - 0 \sync
        a: \bind - s \execute - 0 \sync
        a: \parse s SELECT 'again' \bind - s \execute - 0 \sync
        b: DEALLOCATE ALL
        b: \bind - s \execute - 0 \sync
        a: \bind - s \execute - 0 \sync
        b: \parse s SELECT 'b' \parse - DEALLOCATE ALL \bind - - \execute - 0 \sync
        b: \bind - s \execute - 0 \sync
        a: \bind - s \execute - 0 \sync
        a: BEGIN
        a: DISCARD ALL
        a: ROLLBACK
        a: \bind - s \execute - 0 \sync"]);
}

#[test]
fn what_is_discarded_by_a_portal_is_gone_when_that_is_executed() {
    same(&[
        r"
        b: \parse x SELECT 2 \sync
        a: \parse s SELECT 1 \parse d DEALLOCATE ALL \parse - SELECT 'any' \bind p1 d \bind p2 - \execute p1 0 \parse s2 SELECT 2 \sync
        a: \bind - s2 \execute - 0 \sync
        a: \bind - s \execute - 0 \sync
        b: \bind - x \execute - 0 \sync
        b: \parse y SELECT 2 \bind - y \execute - 0 \sync",
        r"
        b: \parse x SELECT 2 \sync
        a: \parse d DISCARD ALL \parse - SELECT 'any' \bind p1 d \bind p2 - \execute p1 0 \parse s2 SELECT 2 \sync
        a: \bind - s2 \execute - 0 \sync
        b: \bind - x \execute - 0 \sync
        b: \parse y SELECT 2 \bind - y \execute - 0 \sync",
        r"
        b: \parse x SELECT 2 \sync
        a: BEGIN
        a: \parse d DEALLOCATE ALL \parse t SELECT 1 \bind p1 d \bind p2 t \execute p2 0 \execute p1 0 \parse s2 SELECT 2 \sync
        a: \bind - s2 \execute - 0 \sync
        a: \bind - t \execute - 0 \sync
        a: ROLLBACK
        b: \bind - x \execute - 0 \sync
        b: \parse y SELECT 2 \bind - y \execute - 0 \sync",
    ]);
}

/// Nobody looks at statements of this size.
#[test]
fn what_a_large_statement_discards_is_gone() {
    let filler = "x".repeat(1 << 20);
    same(&[
        &format!(
            r"
            b: \parse x SELECT 2 \sync
            a: \query DEALLOCATE ALL; SELECT length('{filler}') \parse s SELECT 2 \bind - s \execute - 0 \sync
            a: \bind - s \execute - 0 \sync
            a: DISCARD ALL
            b: \bind - x \execute - 0 \sync
            b: \parse y SELECT 2 \bind - y \execute - 0 \sync"
        ),
        &format!(
            r"
            b: \parse x SELECT 2 \sync
            a: \parse - DEALLOCATE ALL /* {filler} */ \bind - - \execute - 0 \parse s SELECT 2 \bind - s \execute - 0 \sync
            a: \bind - s \execute - 0 \sync
            a: \parse d DEALLOCATE ALL /* {filler} */ \sync
            a: \bind - d \execute - 0 \parse s SELECT 2 \bind - s \execute - 0 \sync
            a: \bind - s \execute - 0 \sync
            a: DISCARD ALL
            b: \bind - x \execute - 0 \sync"
        ),
    ]);
}

#[test]
fn statements_of_sql_are_each_clients_own() {
    same(&[r"
        a: PREPARE q AS SELECT 'a'
        a: EXECUTE q
        b: EXECUTE q
        b: PREPARE q (int) AS SELECT $1 + 1
        b: EXECUTE q(1)
        a: BEGIN
        a: EXECUTE q
        a: PREPARE late AS SELECT 'late'
        a: ROLLBACK
        a: EXECUTE late
        a: EXPLAIN (COSTS OFF) EXECUTE q
        a: PREPARE q AS SELECT 'again'
        a: DEALLOCATE q
        a: EXECUTE q
        b: EXECUTE q(2)
        b: DEALLOCATE ALL
        b: EXECUTE q(2)"]);
}

#[test]
fn a_failed_block_refuses_statements_that_a_server_has() {
    same(&[
        r"
        a: \parse s SELECT 1 \bind - s \execute - 0 \sync
        b: BEGIN
        b: SELECT 1/0
        b: \parse t SELECT 1 \bind - t \execute - 0 \sync
        b: \parse t SELECT 1 \sync
        b: \bind - t \sync
        b: ROLLBACK
        b: \bind - t \sync
        b: \parse t SELECT 1 \bind - t \execute - 0 \sync
        a: \bind - s \execute - 0 \sync",
        r"
        a: \parse s ROLLBACK \sync
        a: \parse e /* nothing */ \sync
        b: BEGIN
        b: SELECT 1/0
        b: \parse e /* nothing */ \bind - e \execute - 0 \sync
        b: \parse t ROLLBACK \bind - t \execute - 0 \sync
        b: \bind - t \execute - 0 \sync
        a: \bind - s \execute - 0 \sync",
        r"
        a: \parse s SELECT 1 \bind - s \execute - 0 \sync
        b: \query BEGIN; SELECT 1/0 \parse t SELECT 1 \bind - t \execute - 0 \sync
        b: ROLLBACK
        b: \query BEGIN \parse - SELECT 1/0 \bind - - \execute - 0 \sync \parse t SELECT 1 \sync
        b: \bind - t \execute - 0 \sync
        b: ROLLBACK
        b: \bind - t \execute - 0 \sync
        a: \bind - s \execute - 0 \sync",
    ]);
}

#[test]
fn a_parse_counts_as_a_command_behind_a_portal_that_is_suspended() {
    same(&[r"
        a: \parse u UPDATE items SET n = n + 1 WHERE id = 150 \sync
        a: \parse - INSERT INTO items VALUES (150, 'own', 1) RETURNING id \bind p - \execute p 1 \parse v UPDATE items SET n = n + 1 WHERE id = 150 \bind - v \execute - 0 \sync
        b: \parse w UPDATE items SET n = n + 1 WHERE id = 150 \bind - w \execute - 0 \sync
        a: \parse - INSERT INTO items VALUES (151, 'own', 1) RETURNING id \bind p - \execute p 1 \flush \bind - u \execute - 0 \sync
        a: \bind - v \execute - 0 \sync
        a: SELECT id, n FROM items WHERE id IN (150, 151) ORDER BY id
        a: DELETE FROM items WHERE id IN (150, 151)"]);
}

#[test]
fn statements_of_sql_in_the_middle_of_a_batch() {
    same(&[
        r"
        c: \parse s SELECT $1::int + 1 \sync
        c: \execute p 0 \query EXECUTE s(1) \sync
        c: \parse - SELECT 1 \query EXECUTE s(2) \bind - - \execute - 0 \sync
        b: \query EXECUTE s \parse - SELECT 3 \bind - - \execute - 0 \sync
        c: \query EXECUTE s(3) \query EXECUTE s(4) \parse - EXECUTE s(5) \bind - - \execute - 0 \sync",
        r"
        b: \parse r SELECT 'no parameters' \sync
        b: \parse s SHOW work_mem \execute - 0 \query EXECUTE r(7) \sync \parse s COMMIT \sync
        a: EXECUTE r
        b: EXECUTE s",
        r"
        c: PREPARE q AS SELECT 1
        c: BEGIN
        c: SELECT 1/0
        c: EXECUTE q
        c: \parse - EXECUTE q; SELECT 2 \sync
        c: \parse - EXECUTE q \sync
        c: \parse - DEALLOCATE q \bind - - \execute - 0 \sync
        c: ROLLBACK
        c: EXECUTE q",
    ]);
}

#[test]
fn what_a_failed_block_refuses_is_refused_whatever_has_its_name() {
    same(&[
        r"
        a: PREPARE q AS SELECT 1
        b: PREPARE q AS SELECT 2
        a: BEGIN; SELECT 1/0
        a: \parse q SELECT 1; SELECT 2 \sync
        a: \parse q SELEC 1 \sync
        a: \parse q SELECT 1 \sync
        a: ROLLBACK
        a: EXECUTE q",
        r"
        a: \parse q SELECT 1 \sync
        b: SELECT 2
        a: BEGIN; SELECT 1/0
        a: \parse q SELECT 1; SELECT 2 \sync
        a: \parse q SELEC 1 \sync
        a: \parse q SELECT 1 \sync
        a: ROLLBACK
        a: EXECUTE q",
    ]);
}

/// Nothing but its name matters there: that its tables are not found any more is no reason to refuse.
#[test]
fn a_statement_whose_tables_are_not_found_can_be_deallocated_and_not_be_prepared_twice() {
    same(&[
        r"
        a: \parse s SELECT id FROM items \parse t SELECT note FROM items \sync
        a: PREPARE q AS SELECT * FROM items
        b: BEGIN
        a: SET search_path = ''
        a: DEALLOCATE s
        a: \parse - DEALLOCATE t \bind - - \execute - 0 \sync
        a: DEALLOCATE q
        a: DEALLOCATE q
        a: RESET search_path
        b: COMMIT
        a: \bind - s \execute - 0 \sync
        b: \bind - s \execute - 0 \sync
        a: EXECUTE q",
        r"
        a: \parse q UPDATE items SET note = $1 WHERE id = 200 \sync
        a: PREPARE r AS SELECT id FROM items
        b: BEGIN
        a: SET search_path = ''
        a: DEALLOCATE q; PREPARE q AS SELECT 'new'
        a: DEALLOCATE r; PREPARE r AS SELECT 'again'; DEALLOCATE r; PREPARE r AS SELECT 'r'
        b: COMMIT
        b: BEGIN
        a: RESET search_path
        a: EXECUTE q
        a: DEALLOCATE q; PREPARE q AS SELECT 'newer'; EXECUTE q
        a: EXECUTE r
        b: COMMIT",
        r"
        b: SELECT 1
        a: \parse s SELECT id FROM items \sync
        a: PREPARE q AS SELECT 'q' FROM items
        a: SET search_path = ''
        b: BEGIN
        a: PREPARE q AS SELECT 1
        a: PREPARE s AS SELECT 1
        a: \parse s SELECT 1 \sync
        a: \parse q SELECT 1 \sync
        a: \parse s SELEC \sync
        b: COMMIT
        c: SELECT 1
        a: RESET search_path
        a: EXECUTE q
        a: EXECUTE s
        a: \bind - s \execute - 0 \sync
        a: \bind - q \execute - 0 \sync
        a: DEALLOCATE ALL
        a: EXECUTE q",
        r"
        a: \parse s SELECT id FROM items \sync
        b: SELECT 1
        a: \parse - DEALLOCATE s \bind - - \execute - 0 \parse s SELECT 2 \bind - s \execute - 0 \sync
        a: \parse - EXECUTE s \parse d DEALLOCATE s \bind p d \bind - - \execute - 0 \execute p 0 \bind - - \execute - 0 \sync
        a: \bind - s \sync",
    ]);
}

#[test]
fn a_name_like_those_of_pgweir_is_taken_once() {
    same(&[r"
        a: \parse pgweir_1 SELECT 1 \parse né SELECT 2 \sync
        b: SELECT 1
        a: \parse pgweir_1 SELECT 3 \sync
        a: \parse né SELECT 4 \sync
        b: \parse pgweir_1 SELECT 5 \bind - pgweir_1 \execute - 0 \sync
        a: \parse pgweir_1 SELEC \sync
        a: \parse pgweir_1 SELECT 3 \sync
        a: \bind - pgweir_1 \execute - 0 \bind - né \execute - 0 \sync"]);
}

/// Whatever a batch before it comes to, and whatever the server lacks.
#[test]
fn a_name_that_is_taken_is_refused_behind_a_batch_that_fails() {
    same(&[r"
        a: \parse s SELECT 61 \sync
        b: BEGIN
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \parse - EXECUTE s \bind - - \execute - 0 \sync \parse s SELECT 62 \sync
        b: COMMIT
        a: \bind - s \execute - 0 \sync"]);
}

#[test]
fn what_is_described_behind_a_batch_that_fails_waits_for_it() {
    same(&[r"
        a: \parse s SELECT 63 \parse x EXECUTE s \sync
        b: SELECT 1
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \bind - x \execute - 0 \sync \describe S x \sync \bind - x \execute - 0 \sync"]);
}

#[test]
fn a_statement_of_sql_whose_close_is_skipped_is_still_there() {
    same(&[r"
        a: PREPARE q AS SELECT 64
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \close S q \sync \parse q SELECT 65 \sync
        a: \bind - q \execute - 0 \sync
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \close S q \sync \bind - q \execute - 0 \sync
        b: SELECT 1
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \close S q \sync \close S q \sync \bind - q \sync"]);
}

/// Nor at values of this size, where the name is all that is waited for.
#[test]
fn what_is_large_waits_for_names_too() {
    let filler = "x".repeat(400_000);
    let statement = "x".repeat(1 << 20);
    same(&[
        &format!(
            r"
            a: PREPARE q (text) AS SELECT length($1)
            b: SELECT 1
            a: \parse - SELECT 1/0 \bind - - \execute - 0 \bind - q x \execute - 0 \sync \bind - q {filler} \execute - 0 \sync"
        ),
        &format!(
            r"
            a: PREPARE q AS SELECT 1
            b: SELECT 1
            a: \parse q SELECT length('{statement}') \sync
            a: \parse s SELECT 2 \sync
            a: \parse s SELECT length('{statement}') \sync
            a: EXECUTE q
            a: \bind - s \execute - 0 \sync"
        ),
    ]);
}

#[test]
fn a_portal_executes_what_a_failing_command_leaves_prepared() {
    same(&[
        r"
        a: PREPARE s AS INSERT INTO items VALUES (160, 'own', 1)
        a: \parse x EXECUTE s \parse d DEALLOCATE s \sync
        a: \bind a x \bind b d \bind c d \execute a 0 \sync
        a: SELECT id FROM items WHERE id = 160
        a: DELETE FROM items WHERE id = 160",
        r"
        a: PREPARE s AS INSERT INTO items VALUES (161, 'own', 1)
        a: \parse x EXECUTE s \sync
        a: BEGIN
        a: \bind a x \sync
        a: SAVEPOINT v
        a: PREPARE s AS SELECT 2
        a: ROLLBACK TO v
        a: \parse s SELECT 2 \sync
        a: ROLLBACK TO v
        a: PREPARE s AS SELECT 2
        a: ROLLBACK TO v
        a: \execute a 0 \sync
        a: COMMIT
        a: SELECT id FROM items WHERE id = 161
        a: DELETE FROM items WHERE id = 161",
    ]);
}

#[test]
fn over_a_table_that_changes_a_statement_is_refused_or_as_it_was() {
    same(&[
        r"
        b: CREATE TABLE changing (a int, b int)
        b: INSERT INTO changing VALUES (1, 2)
        a: \parse s SELECT * FROM changing \describe S s \sync
        c: \parse s SELECT * FROM changing \bind - s \describe P - \execute - 0 \sync
        a: \bind - s \execute - 0 \sync
        b: ALTER TABLE changing ALTER b TYPE text
        a: \bind - s \execute - 0 \sync
        c: BEGIN
        c: \bind - s \execute - 0 \sync
        a: \bind - s \execute - 0 \sync
        c: \bind - s \execute - 0 \sync
        c: ROLLBACK
        a: \close S s \parse s SELECT * FROM changing \describe S s \bind - s \execute - 0 \sync
        c: \bind - s \execute - 0 \sync \parse - SELECT 1 \bind - - \execute - 0 \sync
        b: ALTER TABLE changing ADD c int
        c: \parse - SELECT 1 \bind - - \execute - 0 \bind - s \execute - 0 \close S s \sync
        a: \bind - s \execute - 0 \sync \close S s \parse s SELECT * FROM changing \describe S s \sync
        a: \bind - s \execute - 0 \sync
        b: ALTER TABLE changing DROP c
        a: \bind - s \execute - 0 \sync
        b: DROP TABLE changing
        a: \bind - s \execute - 0 \sync",
        r"
        b: CREATE TABLE changing (a int, b int)
        a: \parse s SELECT a FROM changing WHERE b = $1::int \describe S s \sync
        c: \parse w INSERT INTO changing VALUES ($1, $2) \describe S w \sync
        c: \bind - w 1 2 \execute - 0 \sync
        b: CREATE INDEX ON changing (a)
        c: \bind - w 3 2 \execute - 0 \sync
        a: \bind - s 2 \execute - 0 \sync
        b: ALTER TABLE changing ADD c int
        c: BEGIN
        c: \bind - w 5 2 \execute - 0 \sync
        a: \bind - s 2 \execute - 0 \sync
        c: COMMIT
        a: BEGIN
        a: ALTER TABLE changing ALTER a TYPE text
        a: \bind - s 2 \execute - 0 \sync
        a: ROLLBACK
        a: \bind - s 2 \execute - 0 \sync
        b: DROP TABLE changing",
    ]);
}
