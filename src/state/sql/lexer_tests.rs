//! Tests of the lexer, token by token.

use super::*;

fn letter(kind: Kind) -> char {
    match kind {
        Kind::Word => 'W',
        Kind::QuotedName => 'Q',
        Kind::UnicodeName => 'U',
        Kind::Text => 'S',
        Kind::Number => 'N',
        Kind::Parameter => 'P',
        Kind::Open => '(',
        Kind::Close => ')',
        Kind::Dot => '.',
        Kind::Comma => ',',
        Kind::Semicolon => ';',
        Kind::Cast => 'C',
        Kind::Operator => 'O',
        Kind::Broken => '!',
        Kind::Start | Kind::End => '?',
    }
}

/// The tokens of a text as `W0-6 N7-8`. What sticks to a number belongs to it, as PostgreSQL 16 has it.
fn tokens(text: &[u8], backslashes: bool) -> String {
    let mut lexer = Lexer::new(text, backslashes);
    let mut found: Vec<(char, usize, usize)> = Vec::new();
    loop {
        let token = lexer.next();
        if token.kind == Kind::End {
            break;
        }
        assert!(token.start < token.end && token.end <= text.len());
        match found.last_mut() {
            Some((kind, _, end))
                if *kind == 'N'
                    && matches!(token.kind, Kind::Word | Kind::Number)
                    && *end == token.start =>
            {
                *end = token.end;
            }
            _ => found.push((letter(token.kind), token.start, token.end)),
        }
    }
    found
        .iter()
        .map(|(kind, start, end)| format!("{kind}{start}-{end}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn unescaped(text: &str) -> Vec<u8> {
    text.replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\\t", "\t")
        .replace("\\s", "\\")
        .into_bytes()
}

/// The file holds texts and the tokens that PostgreSQL 18's own scanner found in them (by `libpg_query`), with
/// `standard_conforming_strings` on and off. Backslashes are written as `\s`.
#[test]
fn tokens_are_those_of_the_scanner_of_postgresql() {
    let file = include_str!("../../../tests/data/lexer/scanned.txt");
    let mut compared = 0;
    for line in file.lines() {
        let mut fields = line.split('\t');
        let (Some(setting), Some(text), Some(expected)) =
            (fields.next(), fields.next(), fields.next())
        else {
            panic!("a line of three fields, not {line}");
        };
        let found = tokens(&unescaped(text), setting == "off");
        if expected == "unterminated" {
            assert!(found.contains('!'), "{line}\n{found}");
        } else {
            assert_eq!(found, expected, "{line}");
        }
        compared += 1;
    }
    assert!(compared >= 400, "{compared} texts");
}
