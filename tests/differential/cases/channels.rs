//! LISTEN and UNLISTEN.

use super::same;

#[test]
fn a_portal_listens_when_it_is_executed() {
    same(&[
        r"
        a: \parse l1 LISTEN one \parse l2 LISTEN two \bind p1 l1 \bind p2 l2 \execute p1 0 \execute p2 0 \sync
        b: NOTIFY one
        b: NOTIFY two",
        r"
        a: \parse l1 LISTEN one \parse l2 LISTEN two \bind p1 l1 \bind p2 l2 \execute p2 0 \sync
        b: NOTIFY one
        b: NOTIFY two",
        r"
        a: \parse l1 LISTEN one \parse l2 LISTEN two \bind p1 l1 \bind p2 l2 \execute p2 0 \execute p1 0 \sync
        b: NOTIFY one
        b: NOTIFY two",
        r"
        a: \parse l LISTEN one \parse u UNLISTEN one \bind p l \bind q u \execute p 0 \sync
        b: NOTIFY one
        a: \bind p l \bind q u \execute q 0 \execute p 0 \sync
        b: NOTIFY one, 'again'
        a: \bind p l \bind q u \execute p 0 \execute q 0 \sync
        b: NOTIFY one, 'unheard'",
        r"
        a: \parse l LISTEN one \parse s SELECT 1 \bind - l \bind - s \execute - 0 \sync
        b: NOTIFY one",
        r"
        a: \parse l LISTEN one \bind p l \close P p \execute p 0 \sync
        b: NOTIFY one",
    ]);
}

#[test]
fn a_portal_of_a_block_listens_when_it_is_executed() {
    same(&[
        r"
        a: BEGIN
        a: LISTEN one
        a: \parse l LISTEN two \bind p l \sync
        a: \execute p 0 \sync
        a: COMMIT
        b: NOTIFY one
        b: NOTIFY two",
        r"
        a: BEGIN
        a: \parse l LISTEN two \bind p l \sync
        a: \parse m LISTEN one \bind q m \execute q 0 \sync
        a: \execute p 0 \sync
        a: COMMIT
        b: NOTIFY one
        b: NOTIFY two",
        r"
        a: BEGIN
        a: LISTEN one
        a: \parse s SAVEPOINT s \parse l LISTEN two \bind p s \bind q l \execute q 0 \sync
        a: COMMIT
        b: NOTIFY one
        b: NOTIFY two",
        r"
        a: BEGIN
        a: \parse l LISTEN one \bind p l \sync
        a: ROLLBACK
        a: \execute p 0 \sync
        b: NOTIFY one",
        r"
        a: BEGIN
        a: \parse l LISTEN one \parse s SAVEPOINT s \parse r ROLLBACK TO s \bind p l \bind q s \bind r r \execute q 0 \execute p 0 \execute r 0 \sync
        a: LISTEN two
        a: COMMIT
        b: NOTIFY one
        b: NOTIFY two",
    ]);
}
