//! What it costs to read a text before it is sent on: `cargo bench --bench lexer`.
//!
//! The goal is less than 100 ns for a SELECT of 60 bytes and less than 10 us for an INSERT of 10 KB.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pgweir::state::statement::{Options, digest, effects, statements};
use std::fmt::Write;

fn main() {
    divan::main();
}

const SELECT: &str = "SELECT id, name, email FROM users WHERE id = $1 AND org = $2";

fn insert(row: &str) -> String {
    let mut text = String::from("INSERT INTO orders (id, customer, note, created_at) VALUES ");
    while text.len() < 10_000 {
        let _ = write!(text, "{row}, ");
    }
    text + row
}

fn texts() -> Vec<(&'static str, String)> {
    let line = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor. ";
    vec![
        ("select_60_bytes", SELECT.to_owned()),
        (
            "select_with_calls",
            "SELECT count(*), lower(n) FROM t WHERE a IN (1, 2) AND b = now()".to_owned(),
        ),
        ("set", "SET myapp.tenant = 'acme'".to_owned()),
        (
            "insert_10_kb",
            insert("(1000042, 'Customer name', 'a note of usual length, no more', now())"),
        ),
        ("insert_10_kb_parameters", insert("($1, $2, $3, $4)")),
        ("insert_10_kb_digits", insert("(1,2,3,4)")),
        ("insert_10_kb_one_string", insert(&format!("(1, 2, '{}', 3)", line.repeat(120)))),
        (
            "reset_of_asyncpg",
            "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;".to_owned(),
        ),
    ]
}

#[divan::bench(args = texts().into_iter().map(|(name, _)| name))]
fn effects_of(bencher: Bencher<'_, '_>, name: &str) {
    let text = texts()
        .into_iter()
        .find_map(|(other, text)| (other == name).then_some(text))
        .unwrap_or_default();
    bencher
        .counter(BytesCount::new(text.len()))
        .bench(|| effects(black_box(text.as_bytes()), black_box(Options::default())));
}

#[divan::bench]
fn statements_of_a_select() -> usize {
    statements(black_box(SELECT.as_bytes()), Options::default()).map(|found| found.span().end).sum()
}

#[divan::bench]
fn digest_of_a_select(bencher: Bencher<'_, '_>) {
    let mut out = String::with_capacity(256);
    bencher.bench_local(|| {
        out.clear();
        digest(black_box(SELECT.as_bytes()), Options::default(), &mut out);
        out.len()
    });
}
