//! What README.md says of sessions is shown by tests: those it names exist, and run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

/// The section, and the columns of which each row names tests.
const SECTION: &str = "## What works in transaction pooling";
const COLUMN: &str = "shown by";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                let is_rust = path.extension().is_some_and(|extension| extension == "rs");
                if is_rust { vec![path] } else { Vec::new() }
            }
        })
        .collect()
}

/// True if `text` has a test of this name that is not left out. A name may have the module in front that a macro
/// makes of `module: ...;`.
fn has_test(text: &str, name: &str) -> bool {
    let (module, function) = name.split_once("::").unwrap_or(("", name));
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = |line: usize| lines.get(line).copied().unwrap_or_default();
    let is_test = (1..lines.len()).any(|line| {
        let is_function = at(line).contains(&format!("fn {function}("));
        let attributes = (0..line).rev().map(at).take_while(|above| above.starts_with("#["));
        // Between them may stand what a macro is given.
        let above = if at(line - 1).starts_with("$(") { line - 1 } else { line };
        let tests = at(above - 1).contains("test");
        is_function && tests && !attributes.into_iter().any(|above| above.contains("ignore"))
    });
    let is_module = module.is_empty()
        || (1..lines.len()).any(|line| {
            at(line).starts_with(&format!("{module}: ")) && !at(line - 1).contains("ignore")
        });
    is_test && is_module
}

/// The names in backquotes of the last column, row by row, without what each row is about.
fn rows(readme: &str) -> Vec<(String, Vec<String>)> {
    let section = readme.split_once(SECTION).unwrap().1;
    let section = section.split("\n## ").next().unwrap();
    let mut named = Vec::new();
    let mut inside = false;
    for line in section.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if !line.starts_with('|') {
            inside = false;
        } else if cells.last().is_some_and(|last| last.trim_end_matches([' ', '|']) == COLUMN) {
            inside = true;
        } else if inside && !line.starts_with("|---") {
            let tests = cells.last().unwrap().split('`').skip(1).step_by(2).map(str::to_owned);
            named.push((line.to_owned(), tests.collect()));
        }
    }
    named
}

#[test]
fn each_row_of_the_tables_on_sessions_names_tests_that_exist() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let texts: Vec<String> = sources(&repository().join("tests"))
        .into_iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let rows = rows(&readme);
    assert!(rows.len() >= 25, "{} rows", rows.len());
    for (row, tests) in rows {
        assert!(!tests.is_empty() || row.contains("not yet right"), "names no test: {row}");
        for test in tests {
            assert!(texts.iter().any(|text| has_test(text, &test)), "there is no test {test}");
        }
    }
}

#[test]
fn a_name_that_is_no_test_is_found_out() {
    let text = "#[test]\nfn runs() {}\n#[test]\n#[ignore = \"x\"]\nfn waits() {}\nfn helps() {}\none: Driver;";
    assert!(has_test(text, "runs") && has_test(text, "one::runs"));
    assert!(!has_test(text, "waits") && !has_test(text, "helps") && !has_test(text, "run"));
    assert!(!has_test(text, "two::runs"));
}
