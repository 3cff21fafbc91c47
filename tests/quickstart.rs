//! The first command of the README, at a small size.

mod support;

use std::process::{Command, Stdio};
use support::{PROGRAM_PATIENCE, repository, run, tools_dir};

#[test]
fn the_quickstart_shows_a_table_and_cleans_up() {
    let temporary = tempfile::tempdir().unwrap();
    // PostgreSQL's own user has to get through.
    let everyone = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(temporary.path(), everyone).unwrap();
    let said = run(Command::new(repository().join("deploy/quickstart/run"))
        .args(["--once", "--containers", "120"])
        .env("QUICKSTART_BINARY", env!("CARGO_BIN_EXE_pgweir"))
        .env("NODE_PATH", tools_dir().join("node_modules"))
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null()));
    // Directly, through PgBouncer, through pgweir.
    let row = |name: &str| -> [&str; 3] {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap();
        let cells: Vec<_> = line[name.len()..].split("  ").map(str::trim).collect();
        let cells: Vec<_> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("{name}: {cells:?} in\n{said}"))
    };
    assert_eq!(row("containers"), ["120"; 3]);
    assert_eq!(row("without an error")[2], "120");
    let failed = row("invocations that failed");
    assert_ne!(failed[0], "0", "120 containers fit into 87 connections:\n{said}");
    assert_eq!(failed[2], "0");
    assert_eq!(row("left open by the killed fleet")[2], "120");
    for name in ["connect and log in, p50", "connect and log in, p99", "query, p50", "query, p99"] {
        assert!(row(name).iter().all(|cell| cell.ends_with(" ms")), "{name}:\n{said}");
    }
    let reaped = row("all of them reaped after")[2].strip_suffix(" s").expect("they are reaped");
    assert!(reaped.parse::<f64>().unwrap() < PROGRAM_PATIENCE.as_secs_f64());
    let entries = std::fs::read_dir(temporary.path()).unwrap();
    let left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "the quickstart leaves {left:?} behind");
}
