//! Keeps the layers of the crate as they were meant: an arrow may only point down, the pure layers
//! name no outside world, and files stay short and say what they are for.
//!
//! Reads `src/**/*.rs` as text, so that it needs no compiler plug-in and sees code that is not compiled.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod rules;

use rules::{Fault, check};
use std::path::{Path, PathBuf};

#[test]
fn the_sources_keep_the_rules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(files.len() > 5, "the sources are not where they were");
    files.sort();
    let mut faults = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        faults.extend(check(name, &text));
    }
    let lines: Vec<String> = faults.iter().map(|fault| format!("src/{fault}")).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn the_top_level_holds_what_was_agreed() {
    const AGREED: [&str; 10] = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "src",
        "config",
        "deploy",
        "benches",
        "tests",
        // Left by a build, and in no commit.
        "target",
    ];
    let entries = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let others: Vec<String> =
        names.filter(|name| !name.starts_with('.') && !AGREED.contains(&&**name)).collect();
    assert!(others.is_empty(), "{others:?}");
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The faults of a file with this name and text, as `line: what`.
fn faults(name: &str, text: &str) -> Vec<String> {
    let whole = format!("//! A file.\n{text}");
    check(name, &whole).iter().map(|Fault { line, what, .. }| format!("{line}: {what}")).collect()
}

#[test]
fn an_arrow_may_point_down() {
    assert!(faults("pool/core.rs", "use crate::server::Server;\nuse crate::wire;").is_empty());
    assert!(faults("pool/core.rs", "use crate::pool::budget;\nuse super::queue;").is_empty());
}

#[test]
fn an_arrow_up_is_a_fault() {
    assert_eq!(
        faults("server/mod.rs", "\nuse crate::pool::Lease;"),
        ["3: server (layer 4) must not know pool (layer 6)"]
    );
}

#[test]
fn an_arrow_sideways_is_a_fault() {
    assert_eq!(
        faults("state/pin.rs", "fn f() { crate::auth::verify() }"),
        ["2: state (layer 2) must not know auth (layer 2)"]
    );
}

#[test]
fn arrows_in_groups_and_over_lines_are_found() {
    let text = "use crate::{\n    client::serve::{self, wire},\n    config::Config,\n};";
    assert_eq!(faults("pool/core.rs", text), ["2: pool (layer 6) must not know client (layer 7)"]);
}

#[test]
fn arrows_by_super_are_found() {
    assert_eq!(
        faults("wire/scan.rs", "use super::super::pool::Lease;"),
        ["2: wire (layer 1) must not know pool (layer 6)"]
    );
    // A module inside a file is one step deeper.
    assert!(faults("wire/scan.rs", "mod tests { use super::super::frame; }").is_empty());
    // A declaration is none.
    let declared = "mod tests;\nfn f() { super::super::pool::f() }";
    assert_eq!(faults("wire/scan.rs", declared).len(), 1);
}

#[test]
fn a_module_without_a_layer_is_a_fault() {
    assert_eq!(faults("util.rs", ""), ["1: the module util has no layer in tests/rules/mod.rs"]);
    assert_eq!(
        faults("pool/core.rs", "use crate::util::f;"),
        ["2: the module util has no layer in tests/rules/mod.rs"]
    );
}

#[test]
fn comments_and_strings_are_no_arrows() {
    let text = "// crate::pool\n/* crate::pool /* nested */ crate::app */\n\
                const A: &str = \"crate::pool \\\" crate::app\";\n\
                const B: &str = r#\"crate::pool \" \"#; const C: char = '\"';\n\
                fn f<'a>(a: &'a str) {} // 'crate::pool";
    assert_eq!(faults("wire/tag.rs", text), Vec::<String>::new());
}

#[test]
fn code_after_a_string_is_seen() {
    assert_eq!(
        faults("wire/tag.rs", "const A: &[u8] = b\"\\\\\"; use crate::app;"),
        ["2: wire (layer 1) must not know app (layer 9)"]
    );
}

#[test]
fn a_pure_layer_names_no_outside_world() {
    for word in [
        "use tokio::time;",
        "tracing::info!(\"\");",
        "let now = Instant::now();",
        "let now = SystemTime::now();",
        "static A: Mutex<u8> = Mutex::new(0);",
        "use parking_lot::RwLock;",
        "SystemRandom::new();",
        "aws_lc_rs::rand::fill(&mut nonce);",
    ] {
        for module in ["wire", "state", "auth", "config"] {
            let found = faults(&format!("{module}/x.rs"), word);
            assert!(!found.is_empty(), "{module} may name {word}");
            assert!(found[0].starts_with(&format!("2: {module} is pure and must not name")));
        }
        assert!(faults("pool/core.rs", word).is_empty(), "pool may not name {word}");
    }
    // A point in time that somebody else read is a value.
    assert!(faults("state/x.rs", "fn f(now: Instant) { operand(strand) }").is_empty());
}

#[test]
fn tests_of_a_pure_layer_may_name_anything() {
    let text = "#[cfg(test)]\nmod tests {\n    use tokio::test;\n    fn f() { {} }\n}\n";
    assert!(faults("wire/scan.rs", text).is_empty());
    assert!(faults("wire/tests.rs", "use tokio::test;").is_empty());
    assert!(faults("wire/scan/tests.rs", "use tokio::test;").is_empty());
    assert!(faults("wire/tests/play.rs", "use tokio::test;").is_empty());
    assert!(faults("auth/scram_tests/vectors.rs", "use tokio::test;").is_empty());
    // What follows the tests is code again.
    let after = format!("{text}use tokio::net;\n");
    assert_eq!(faults("wire/scan.rs", &after), ["7: wire is pure and must not name tokio"]);
    // A declaration without a body ends at its semicolon.
    assert_eq!(
        faults("wire/scan.rs", "#[cfg(test)]\nmod tests;\nuse tokio::net;"),
        ["4: wire is pure and must not name tokio"]
    );
}

#[test]
fn a_file_begins_with_what_it_is_for() {
    let found = check("wire/tag.rs", "pub struct Tag;\n");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "wire/tag.rs:1: a file begins with `//!`");
}

#[test]
fn a_file_has_at_most_500_lines() {
    assert!(faults("wire/tag.rs", &"\n".repeat(499)).is_empty());
    assert_eq!(faults("wire/tag.rs", &"\n".repeat(500)), ["501: 501 lines, 500 are the most"]);
}

#[test]
fn main_and_the_root_may_name_every_module() {
    assert!(faults("main.rs", "use pgweir::app;").is_empty());
    assert!(faults("lib.rs", "pub mod app;\npub mod wire;").is_empty());
    assert_eq!(
        faults("lib.rs", "pub mod util;"),
        ["2: the module util has no layer in tests/rules/mod.rs"]
    );
}
