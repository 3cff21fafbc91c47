//! Transaction blocks, savepoints, cursors inside a block, and copies.

use super::same;

#[test]
fn blocks_are_each_clients_own() {
    same(&[
        r"
        a: BEGIN
        b: SELECT count(*) FROM items
        a: INSERT INTO items VALUES (101, 'a', 1)
        b: SELECT count(*) FROM items
        a: SELECT count(*) FROM items
        a: COMMIT
        b: SELECT count(*) FROM items
        b: COMMIT
        a: BEGIN
        a: BEGIN
        a: DELETE FROM items WHERE id = 101
        a: ROLLBACK
        a: ROLLBACK
        c: SELECT count(*) FROM items",
        r"
        a: BEGIN READ ONLY
        a: INSERT INTO items VALUES (101, 'a', 1)
        b: INSERT INTO items VALUES (201, 'b', 1)
        a: SELECT 'refused'
        a: COMMIT
        a: SELECT count(*) FROM items
        a: BEGIN ISOLATION LEVEL REPEATABLE READ
        a: SHOW transaction_isolation
        a: SELECT count(*) FROM items
        b: INSERT INTO items VALUES (202, 'b', 1)
        a: SELECT count(*) FROM items
        a: COMMIT AND CHAIN
        a: SHOW transaction_isolation
        a: SELECT count(*) FROM items
        a: ROLLBACK
        b: SHOW transaction_isolation",
    ]);
}

#[test]
fn several_statements_in_one_query_are_one_transaction() {
    same(&[r"
        a: INSERT INTO items VALUES (101, 'a'); SELECT 1/0
        b: SELECT count(*) FROM items
        a: BEGIN; INSERT INTO items VALUES (101, 'a'); COMMIT; SELECT 1/0
        b: SELECT count(*) FROM items
        a: INSERT INTO items VALUES (102, 'a'); BEGIN; SELECT 1
        b: SELECT count(*) FROM items
        a: COMMIT; INSERT INTO items VALUES (103, 'a'); ROLLBACK
        b: SELECT count(*) FROM items
        a: SELECT 1; BEGIN; SELECT 1/0; COMMIT
        b: SELECT 1
        a: SELECT 'refused'
        a: COMMIT
        b: COMMIT; BEGIN; ROLLBACK"]);
}

#[test]
fn pipelines_are_transactions_up_to_their_sync() {
    same(&[
        r"
        a: \parse - INSERT INTO items VALUES (101, 'a') \bind - - \execute - 0 \flush
        b: SELECT count(*) FROM items
        a: \parse - SELECT 1/0 \bind - - \execute - 0 \flush
        b: SELECT count(*) FROM items
        a: \sync
        a: SELECT count(*) FROM items
        b: \parse i INSERT INTO items VALUES (201, $1) \bind - i x \execute - 0 \sync \bind - i y \execute - 0 \sync \query SELECT 1
        a: SELECT owner FROM items WHERE id = 201
        a: \query BEGIN \parse - SELECT 1/0 \bind - - \execute - 0 \query SELECT 'skipped' \sync \query SELECT 2
        a: \sync \sync
        b: \sync
        a: ROLLBACK",
        r"
        a: \parse - BEGIN \bind - - \execute - 0 \parse - INSERT INTO items VALUES (101, 'a') \bind - - \execute - 0 \sync
        b: SELECT count(*) FROM items
        a: \parse - COMMIT \bind - - \execute - 0 \parse - SELECT count(*) FROM items \bind - - \execute - 0 \sync
        b: SELECT count(*) FROM items
        a: \query BEGIN \query SELECT 1/0 \query SELECT 2 \query COMMIT \query SELECT 3
        b: \query BEGIN \query SELECT 1
        b: \query COMMIT \query BEGIN \query ROLLBACK",
    ]);
}

#[test]
fn savepoints_go_back_to_where_they_were() {
    same(&[r"
        a: BEGIN
        a: SAVEPOINT one
        a: INSERT INTO items VALUES (101, 'a')
        b: SAVEPOINT one
        a: SAVEPOINT two
        a: SELECT 1/0
        a: RELEASE two
        a: ROLLBACK TO two
        a: SELECT count(*) FROM items
        b: BEGIN; SAVEPOINT one; SAVEPOINT one
        b: RELEASE one
        b: ROLLBACK TO one; RELEASE one
        b: ROLLBACK TO one
        a: ROLLBACK TO SAVEPOINT one
        a: SELECT count(*) FROM items
        a: RELEASE SAVEPOINT no_such
        a: COMMIT
        b: COMMIT
        a: ROLLBACK TO one"]);
}

#[test]
fn cursors_live_in_their_block() {
    same(&[r"
        a: BEGIN
        a: DECLARE c CURSOR FOR SELECT id FROM items ORDER BY id
        b: FETCH c
        a: FETCH 2 FROM c
        b: BEGIN; DECLARE c SCROLL CURSOR FOR SELECT generate_series(1, 9)
        b: FETCH LAST FROM c
        a: \parse - FETCH 1 FROM c \bind - - \describe P - \execute - 0 \sync
        b: FETCH BACKWARD 2 FROM c
        a: MOVE 3 FROM c
        a: SELECT name, statement, is_holdable FROM pg_cursors
        a: FETCH ALL FROM c
        a: COMMIT
        a: FETCH c
        b: CLOSE c
        b: CLOSE c
        b: ROLLBACK
        b: DECLARE c CURSOR FOR SELECT 1"]);
}

#[test]
fn portals_are_read_in_parts() {
    same(&[r"
        a: BEGIN
        a: \parse - SELECT generate_series(1, 5) \bind p - \describe P p \execute p 2 \sync
        b: \execute p 2 \sync
        a: \execute p 2 \flush
        a: \execute p 2 \sync
        a: \execute p 2 \sync
        a: \close P p \describe P p \sync
        a: SELECT 1
        a: ROLLBACK
        b: \parse - SELECT generate_series(1, 5) \bind p - \execute p 2 \execute p 2 \sync
        b: \execute p 1 \sync
        a: \parse - SELECT 5 / (3 - n) FROM generate_series(1, 5) AS n \bind - - \execute - 1 \execute - 1 \execute - 1 \execute - 1 \sync
        a: \bind - - \execute - 1 \sync"]);
}

#[test]
fn copies_end_well_and_badly() {
    same(&[r"
        a: \copy COPY lines FROM STDIN (FORMAT csv) \data 7,x \data y,z \done
        b: SELECT count(*) FROM lines
        a: \copyx COPY lines FROM STDIN (FORMAT csv) \data 7,x \data 8,z \done \sync
        b: COPY (SELECT * FROM lines ORDER BY id) TO STDOUT
        b: \copy COPY lines FROM STDIN (FORMAT csv) \data 1,x \fail
        b: \copyx COPY lines FROM STDIN (FORMAT csv) \data 1,x \fail \sync
        a: \parse - COPY (SELECT 5 / (3 - n) FROM generate_series(1, 5) AS n) TO STDOUT \bind - - \describe P - \execute - 0 \sync
        a: BEGIN
        a: \copyx COPY lines FROM STDIN (FORMAT csv) \data 9,x \done \flush
        b: \copy COPY no_such FROM STDIN \data 9 \done
        a: \copyx COPY lines FROM STDIN (FORMAT csv) \data many \done \parse - SELECT 1 \sync
        a: \copy COPY lines FROM STDIN \data 1 \done
        a: COMMIT
        b: SELECT count(*) FROM lines"]);
}
