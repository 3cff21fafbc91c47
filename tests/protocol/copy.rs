//! COPY in both directions, as a simple and as an extended query, to its good and bad ends.

use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;
use crate::support::raw::RawClient;

/// A pool of one, and a table of this name.
fn with_table(table: &str) -> (Pgweir, RawClient) {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let create = format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id int PRIMARY KEY)");
    shared().client().execute(&create);
    let client = pgweir.client();
    (pgweir, client)
}

fn extended(sql: &str) -> Vec<u8> {
    [frontend::parse("", sql), frontend::bind("", "", &[]), frontend::execute("", 0)].concat()
}

/// The server went back to the pool and works.
fn is_free(pgweir: &Pgweir, count: &str, table: &str) {
    let sql = format!("SELECT count(*) FROM {table}");
    assert_eq!(pgweir.client().value(&sql), count);
}

#[test]
fn a_simple_copy_in_ends_well() {
    let (pgweir, mut client) = with_table("copy_simple");
    client.send(&frontend::query("COPY copy_simple FROM STDIN"));
    assert_eq!(client.read_message().line(), "CopyInResponse");
    client.send(&[frontend::copy_data(b"1\n2\n"), frontend::copy_data(b"3\n")].concat());
    let end = client.batch(&[frontend::copy_done()]);
    assert_eq!(end, ["CommandComplete COPY 3", "ReadyForQuery I"]);
    is_free(&pgweir, "3", "copy_simple");
}

#[test]
fn a_copy_in_sent_without_waiting_ends_well() {
    let (pgweir, mut client) = with_table("copy_eager");
    let transcript = client.batch(&[
        frontend::query("COPY copy_eager FROM STDIN"),
        frontend::copy_data(b"1\n2\n"),
        frontend::copy_done(),
    ]);
    assert_eq!(transcript, ["CopyInResponse", "CommandComplete COPY 2", "ReadyForQuery I"]);
    is_free(&pgweir, "2", "copy_eager");
    let transcript = client.batch(&[
        extended("COPY copy_eager FROM STDIN"),
        frontend::copy_data(b"4\n"),
        frontend::copy_done(),
        frontend::sync(),
    ]);
    let expected = [
        "ParseComplete",
        "BindComplete",
        "CopyInResponse",
        "CommandComplete COPY 1",
        "ReadyForQuery I",
    ];
    assert_eq!(transcript, expected);
    is_free(&pgweir, "3", "copy_eager");
}

/// The way of libpq: the Sync behind Execute is eaten by the copy, so a second one is sent.
#[test]
fn an_extended_copy_in_with_an_early_sync_ends_well() {
    let (pgweir, mut client) = with_table("copy_extended");
    client.send(&[extended("COPY copy_extended FROM STDIN"), frontend::sync()].concat());
    for expected in ["ParseComplete", "BindComplete", "CopyInResponse"] {
        assert_eq!(client.read_message().line(), expected);
    }
    client.send(&[frontend::copy_data(b"1\n"), frontend::flush()].concat());
    let end = client.batch(&[frontend::copy_done(), frontend::sync()]);
    assert_eq!(end, ["CommandComplete COPY 1", "ReadyForQuery I"]);
    assert_eq!(client.value("SELECT 'in step'"), "in step");
    is_free(&pgweir, "1", "copy_extended");
}

#[test]
fn a_client_can_fail_its_copy() {
    let (pgweir, mut client) = with_table("copy_fail");
    client.send(&frontend::query("COPY copy_fail FROM STDIN"));
    assert_eq!(client.read_message().line(), "CopyInResponse");
    client.send(&frontend::copy_data(b"1\n"));
    let end = client.batch(&[frontend::copy_fail("changed my mind")]);
    assert_eq!(end, ["ErrorResponse ERROR 57014", "ReadyForQuery I"]);
    is_free(&pgweir, "0", "copy_fail");

    client.send(&[extended("COPY copy_fail FROM STDIN"), frontend::flush()].concat());
    for expected in ["ParseComplete", "BindComplete", "CopyInResponse"] {
        assert_eq!(client.read_message().line(), expected);
    }
    let end = client.batch(&[frontend::copy_fail("again"), frontend::sync()]);
    assert_eq!(end, ["ErrorResponse ERROR 57014", "ReadyForQuery I"]);
    assert_eq!(client.value("SELECT 'in step'"), "in step");
    is_free(&pgweir, "0", "copy_fail");
}

#[test]
fn a_row_that_fails_ends_the_copy_and_what_comes_late_is_ignored() {
    let (pgweir, mut client) = with_table("copy_bad_row");
    client.send(&frontend::query("COPY copy_bad_row FROM STDIN"));
    assert_eq!(client.read_message().line(), "CopyInResponse");
    client.send(&frontend::copy_data(b"1\nno number\n"));
    assert_eq!(client.until_ready(), ["ErrorResponse ERROR 22P02", "ReadyForQuery I"]);
    client.send(&[frontend::copy_data(b"2\n"), frontend::copy_done()].concat());
    assert_eq!(client.value("SELECT 'in step'"), "in step");
    is_free(&pgweir, "0", "copy_bad_row");
}

#[test]
fn a_row_that_fails_in_an_extended_copy_skips_to_the_sync() {
    let (pgweir, mut client) = with_table("copy_bad_extended");
    for round in 0..3 {
        let copy = extended("COPY copy_bad_extended FROM STDIN");
        client.send(&[copy, frontend::flush()].concat());
        for expected in ["ParseComplete", "BindComplete", "CopyInResponse"] {
            assert_eq!(client.read_message().line(), expected);
        }
        client.send(&frontend::copy_data(b"1\n1\n"));
        let late = [frontend::copy_data(b"2\n"), frontend::copy_done(), frontend::sync()];
        client.send(&late.concat());
        assert_eq!(client.until_ready(), ["ErrorResponse ERROR 23505", "ReadyForQuery I"]);
        assert_eq!(client.value(&format!("SELECT 'round {round}'")), format!("round {round}"));
    }
    is_free(&pgweir, "0", "copy_bad_extended");
}

/// Whether the copy ate the early Sync is not certain, so that its server is closed. A client that
/// had something there must hear of it.
#[test]
fn a_client_that_loses_what_it_had_by_a_failed_copy_is_told() {
    let (_pgweir, mut client) = with_table("copy_pinned");
    client.execute("CREATE TEMP TABLE mine (id int)");
    client.send(&[extended("COPY copy_pinned FROM STDIN"), frontend::sync()].concat());
    for expected in ["ParseComplete", "BindComplete", "CopyInResponse"] {
        assert_eq!(client.read_message().line(), expected);
    }
    client.send(&[frontend::copy_data(b"no number\n"), frontend::copy_done()].concat());
    assert_eq!(client.read_message().line(), "ErrorResponse ERROR 22P02");
    client.send(&frontend::sync());
    assert_eq!(client.read_message().line(), "ReadyForQuery I");
    assert_eq!(client.until_closed(), ["ErrorResponse FATAL 08006"]);
}

#[test]
fn copying_out_is_streamed_in_both_protocols() {
    let (pgweir, mut client) = with_table("copy_out");
    client.execute("INSERT INTO copy_out SELECT generate_series(1, 3)");
    let rows = [
        "CopyOutResponse",
        "CopyData 1",
        "CopyData 2",
        "CopyData 3",
        "CopyDone",
        "CommandComplete COPY 3",
        "ReadyForQuery I",
    ];
    let sql = "COPY copy_out TO STDOUT";
    assert_eq!(client.query(sql), rows);
    let transcript = client.batch(&[extended(sql), frontend::sync()]);
    assert_eq!(transcript[..2], ["ParseComplete", "BindComplete"]);
    assert_eq!(transcript[2..], rows);
    let failing = client.query("COPY (SELECT 1 / (3 - g) FROM generate_series(1, 5) g) TO STDOUT");
    assert_eq!(failing[failing.len() - 2..], ["ErrorResponse ERROR 22012", "ReadyForQuery I"]);
    is_free(&pgweir, "3", "copy_out");
}

#[test]
fn a_copy_inside_a_query_of_several_statements_goes_on_with_the_next() {
    let (pgweir, mut client) = with_table("copy_multi");
    client.send(&frontend::query("SELECT 'before'; COPY copy_multi FROM STDIN; SELECT 'after'"));
    loop {
        if client.read_message().line() == "CopyInResponse" {
            break;
        }
    }
    let rest = client.batch(&[frontend::copy_data(b"7\n"), frontend::copy_done()]);
    let expected = [
        "CommandComplete COPY 1",
        "RowDescription ?column?",
        "DataRow after",
        "CommandComplete SELECT 1",
        "ReadyForQuery I",
    ];
    assert_eq!(rest, expected);
    is_free(&pgweir, "1", "copy_multi");
}

#[test]
fn a_client_gone_inside_its_copy_leaves_no_rows() {
    let (pgweir, mut client) = with_table("copy_gone");
    client.send(&frontend::query("COPY copy_gone FROM STDIN"));
    assert_eq!(client.read_message().line(), "CopyInResponse");
    client.send(&frontend::copy_data(b"1\n2\n"));
    drop(client);
    is_free(&pgweir, "0", "copy_gone");
}
