//! Tests of the digest: no literal survives.

use super::*;
use proptest::prelude::*;

fn of(text: &str) -> String {
    let mut out = String::new();
    digest(text.as_bytes(), Options::default(), &mut out);
    out
}

#[test]
fn literals_become_numbers_and_the_rest_lower_case() {
    for (text, expected) in [
        ("SET search_path TO \"$user\",Public,x", "set search_path to $1,$2,$3"),
        ("SET  myapp.tenant\n= 'acme' -- why\n;", "set myapp.tenant = $1 ;"),
        ("SET ROLE Alice", "set role $1"),
        ("SET x TO DEFAULT; SELECT y", "set x to default; select y"),
        (
            "SELECT * FROM \"Users\" WHERE id=42 AND b = $7",
            "select * from \"users\" where id=$1 and b = $2",
        ),
        (
            "SELECT 'a''b', E'\\'', $$c$$, $t$d$t$, B'1', X'ff', N'e', U&'f'",
            "select $1, $2, $3, $4, $5, $6, $7, $8",
        ),
        ("SELECT 1.5e-3+.5, 0x1F, 1_000, a1", "select $1+$2, $3, $4, a1"),
        ("select/* secret */1", "select $1"),
        ("SELECT 'unterminated", "select $1"),
        ("  ", ""),
    ] {
        assert_eq!(of(text), expected, "{text}");
    }
}

#[test]
fn a_digest_is_appended_and_has_at_most_256_bytes_however_long_the_text() {
    let mut out = String::from("pinned: ");
    digest(
        format!("SELECT {}", "\u{e9}, ".repeat(100_000)).as_bytes(),
        Options::default(),
        &mut out,
    );
    let len = out.len() - "pinned: ".len();
    assert!(
        out.starts_with("pinned: select \u{e9}, \u{e9}") && (250..=DIGEST_MAX).contains(&len),
        "{len}"
    );
}

#[test]
fn where_bytes_do_not_stand_for_themselves_nothing_is_shown() {
    let mut out = String::new();
    let options = Options { ascii_safe_encoding: false, ..Options::default() };
    digest(b"SELECT E'\x83\x5c' || secret", options, &mut out);
    assert_eq!(out, "");
}

proptest! {
    #[test]
    fn no_literal_and_no_comment_is_in_a_digest(
        before in "(SELECT|[a-z]{1,3}|,|\\(|\\)|;|=|1|'x'| ){0,12}",
        around in proptest::sample::select(&[
            ("'", "'"), ("'a''", "'"), ("E'\\'", "\\\\'"), ("e'x'\n'\\'", "'"), ("B'", "'"), ("x'", "'"), ("N'", "'"),
            ("U&'", "'"), ("$$", "$$"), ("$a$ $b$ ", " $$ $a$"), ("--", "\n"), ("/*", "*/"), ("/* /* ", "*/ */"),
            ("1", ""), ("1.5", "e3"), ("0x", ""), ("$1", ""), ("'", ""), ("\"", ""), ("$$", ""), ("/*", ""),
        ][..]),
        after in "(SELECT|[a-z]{1,3}|,|\\(|\\)|;|=|1|'x'| ){0,12}",
    ) {
        const SECRET: &str = "7s3cr3t";
        let (open, close) = around;
        let digest = of(&format!("{before} {open}{SECRET}{close} {after}"));
        prop_assert!(!digest.contains("s3cr3t"), "{digest}");
    }

    #[test]
    fn any_text_has_a_digest_within_the_bound(text in proptest::collection::vec(any::<u8>(), 0..600), off: bool) {
        let mut out = String::new();
        let options = Options { standard_conforming_strings: !off, ..Options::default() };
        digest(&text, options, &mut out);
        prop_assert!(out.len() <= DIGEST_MAX);
    }
}
