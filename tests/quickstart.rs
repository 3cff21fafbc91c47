//! The first command of the README, at a small size.

mod support;

use std::process::{Command, Stdio};
use support::{repository, run};

#[test]
fn the_quickstart_shows_a_table_and_cleans_up() {
    let temporary = tempfile::tempdir().unwrap();
    // PostgreSQL's own user has to get through.
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(temporary.path(), everyone).unwrap();
    let said = run(Command::new(repository().join("deploy/quickstart/run"))
        .args(["--once", "--clients", "150"])
        .env("PGWEIR_BINARY", env!("CARGO_BIN_EXE_pgweir"))
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null()));
    let row = |name: &str| -> Vec<&str> {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().collect()
    };
    assert_eq!(row("clients"), ["150", "150"]);
    assert_eq!(row("succeeded")[1], "150");
    assert_ne!(row("failed")[0], "0", "150 clients fit into 87 connections:\n{said}");
    assert_eq!(row("failed")[1], "0");
    let entries = std::fs::read_dir(temporary.path()).unwrap();
    let left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "the quickstart leaves {left:?} behind");
}
