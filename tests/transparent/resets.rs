//! The reset queries of drivers leave their clients unpinned, and as they were when they came.

use crate::support::messages::frontend;
use crate::{finds_nothing, pinned, pool_of, same_alone};

/// As asyncpg sends it.
const ASYNCPG: &str = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";

#[test]
fn a_reset_query_is_answered_as_by_postgresql_and_does_not_pin() {
    for reset in [
        ASYNCPG,
        "DISCARD ALL",
        "DISCARD ALL;",
        "RESET ALL",
        "UNLISTEN *",
        "CLOSE ALL",
        "DEALLOCATE ALL",
        "RESET SESSION AUTHORIZATION",
        "SELECT pg_advisory_unlock_all()",
    ] {
        same_alone(
            &[],
            &[
                reset,
                "SET work_mem = '77MB'; SET timezone = 'Asia/Tokyo'",
                reset,
                "SELECT current_setting('work_mem'), current_setting('timezone')",
                "RESET ALL",
                reset,
            ],
        );
    }
}

#[test]
fn a_reset_query_lets_a_pinned_client_go() {
    for (makes, reset) in [
        ("SELECT pg_advisory_lock(1)", ASYNCPG),
        ("BEGIN; DECLARE left_over CURSOR WITH HOLD FOR SELECT 1; COMMIT", ASYNCPG),
        ("CREATE TEMP TABLE left_over (id int)", "DISCARD ALL"),
        ("PREPARE left_over AS SELECT 1", "DEALLOCATE ALL"),
    ] {
        let pgweir = pool_of(1);
        let mut client = pgweir.client();
        client.execute(makes);
        client.execute(reset);
        finds_nothing(&mut pgweir.client());
        assert_eq!(pinned(&pgweir), 0.0, "{makes}");
    }
}

#[test]
fn statements_of_the_protocol_go_with_a_discard() {
    let pgweir = pool_of(1);
    for reset in ["DISCARD ALL", "DEALLOCATE ALL"] {
        let mut client = pgweir.client();
        client.batch(&[frontend::parse("s", "SELECT 1"), frontend::sync()]);
        client.execute(reset);
        let answer = client.batch(&[frontend::bind("", "s", &[]), frontend::sync()]);
        assert_eq!(answer, ["ErrorResponse ERROR 26000", "ReadyForQuery I"], "{reset}");
    }
}
