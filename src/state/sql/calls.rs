//! Is `name (` the call of a function, and what may the call leave behind?
//!
//! Told by the tokens before the name, without a grammar. Where that cannot be told the answer is a call: a check too
//! many costs time, one too few leaks state. What a text does not show (a function behind an operator, a view, a
//! default, a trigger, a policy, `t.f` for `f(t)`) is not found here.

use super::classify::Scan;
use super::functions::{effects_of, of_user};
use super::lexer::{Kind, Lexer, Token};
use super::names::hash;
use super::words::{is_keyword, never_calls};
use crate::state::statement::{Command, Effects};

impl Scan<'_> {
    /// To be called at `(`, while `last` is the name before it.
    pub(super) fn call(&mut self) {
        let name = self.near.last;
        if name.start == self.found.name.start && name.start != 0 {
            // EXECUTE p(…): a prepared statement.
            return;
        }
        let bytes = self.lexer.text_of(name);
        let quoted = name.kind == Kind::QuotedName;
        let bare = if quoted { unquoted(bytes) } else { bytes };
        let hash = hash(bare);
        if self.near.qualifier.kind != Kind::Start {
            if self.is_schema(b"information_schema") {
                return;
            }
            if !self.is_schema(b"pg_catalog") {
                if self.may_call_here(bytes) {
                    self.add(of_user(bare));
                }
                return;
            }
        } else if !quoted && never_calls(bytes, hash) {
            return;
        }
        // A quoted name is taken as it is written, and no function of PostgreSQL is written in upper case.
        let effects = if quoted && bare.iter().any(u8::is_ascii_uppercase) {
            of_user(bare)
        } else {
            effects_of(bare, hash, self.options.server_major)
        };
        match effects {
            Effects::NONE => {}
            Effects::SET_CONFIG if is_local(self.lexer) => self.add(Effects::SET_LOCAL),
            _ if effects.intersects(Effects::USER_FUNCTION) && !self.may_call_here(bytes) => {}
            _ => self.add(effects),
        }
    }

    fn is_schema(&self, schema: &[u8]) -> bool {
        let bytes = self.lexer.text_of(self.near.qualifier);
        match self.near.qualifier.kind {
            Kind::Word => bytes.eq_ignore_ascii_case(schema),
            Kind::QuotedName => unquoted(bytes) == schema,
            _ => false,
        }
    }

    /// Whether an expression can begin where the name does. If not, the name is an alias, a table or a type.
    fn may_call_here(&self, name: &[u8]) -> bool {
        let before = self.near.before;
        match before.kind {
            // The word that the statement begins with; a type; an alias; an operand, which an operator would follow.
            Kind::Start
            | Kind::Cast
            | Kind::QuotedName
            | Kind::Text
            | Kind::Number
            | Kind::Parameter => false,
            Kind::Operator => self.lexer.text_of(before) != b"]",
            Kind::Close => self.expression_after_close,
            Kind::Comma => !self.in_with_list(),
            Kind::Word => {
                let before = self.lexer.text_of(before);
                is_keyword(before)
                    && !NAME_FOLLOWS.iter().any(|word| is(before, word))
                    && !(self.near.qualifier.kind == Kind::Start && is_pair(before, name))
                    && !(self.found.command == Command::Copy
                        && (is(name, b"stdin") || is(name, b"stdout")))
            }
            _ => true,
        }
    }
}

/// Keywords after which no expression can come, but a name with a list of columns or a modifier can.
const NAME_FOLLOWS: [&[u8]; 10] = [
    b"as",
    b"into",
    b"with",
    b"recursive",
    b"copy",
    b"table",
    b"exists",
    b"references",
    b"only",
    b"tablesample",
];

/// Words that may name a function, but not behind these. GROUP BY CUBE is not among them: ORDER BY cube(x) is a call.
const PAIRS: [(&[u8], &[u8]); 25] = [
    (b"inner", b"join"),
    (b"left", b"join"),
    (b"right", b"join"),
    (b"full", b"join"),
    (b"outer", b"join"),
    (b"cross", b"join"),
    (b"natural", b"join"),
    (b"not", b"like"),
    (b"not", b"ilike"),
    (b"explain", b"verbose"),
    (b"analyze", b"verbose"),
    (b"analyse", b"verbose"),
    (b"on", b"conflict"),
    (b"update", b"set"),
    (b"grouping", b"sets"),
    (b"order", b"by"),
    (b"group", b"by"),
    (b"partition", b"by"),
    (b"primary", b"key"),
    (b"foreign", b"key"),
    (b"time", b"zone"),
    (b"not", b"materialized"),
    (b"bit", b"varying"),
    (b"char", b"varying"),
    (b"character", b"varying"),
];

fn is_pair(before: &[u8], name: &[u8]) -> bool {
    PAIRS.iter().any(|(first, second)| is(before, first) && is(name, second))
}

fn is(word: &[u8], keyword: &[u8]) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

/// The inside of `"name"`. A doubled quote stays as it is: no name that we look for has one.
fn unquoted(bytes: &[u8]) -> &[u8] {
    bytes.get(1..bytes.len().saturating_sub(1)).unwrap_or_default()
}

/// Whether the third argument of `set_config` is the word `true`: the setting then ends with the transaction.
fn is_local(mut arguments: Lexer<'_>) -> bool {
    let mut depth = 0_u32;
    let mut commas = 0_u32;
    let mut third: Option<Token> = None;
    loop {
        let token = arguments.next();
        match token.kind {
            Kind::Close if depth == 0 => break,
            Kind::End | Kind::Broken | Kind::Semicolon => return false,
            Kind::Open => depth += 1,
            Kind::Close => depth -= 1,
            Kind::Comma if depth == 0 => {
                commas += 1;
                continue;
            }
            _ => {}
        }
        if commas == 2 && third.replace(token).is_some() {
            return false;
        }
    }
    third.is_some_and(|token| token.kind == Kind::Word && is(arguments.text_of(token), b"true"))
}
