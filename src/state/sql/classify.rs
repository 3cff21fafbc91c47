//! Walks over a text once and finds, for each statement, what it may leave in the session.
//!
//! A statement is read in two parts: [`super::header`] reads its first words as far as they name what it does, and
//! [`super::body`] the rest, for calls of functions and for the few words that matter anywhere.

use super::body::{NOTABLE, Near};
use super::bytes::Class;
use super::lexer::{Kind, Lexer, Token};
use crate::state::statement::{Command, Effects, Options};
use memchr::memchr2_iter;
use std::ops::Range;

/// What was found about one statement.
#[derive(Clone, Debug)]
pub(in crate::state) struct Found {
    pub(in crate::state) command: Command,
    pub(in crate::state) effects: Effects,
    pub(in crate::state) span: Range<usize>,
    /// Where the name stands that the statement is about; empty when there is none.
    pub(in crate::state) name: Range<usize>,
    /// The setting, where a syntax of its own stands for it (`SET TIME ZONE`).
    pub(in crate::state) setting: Option<&'static str>,
    /// Where the statement within the statement begins, and 0 when there is none.
    pub(in crate::state) body: usize,
}

impl Found {
    const NOTHING: Self = Self {
        command: Command::Unknown,
        effects: Effects::NONE,
        span: 0..0,
        name: 0..0,
        setting: None,
        body: 0,
    };
}

pub(in crate::state) struct Scan<'a> {
    pub(super) lexer: Lexer<'a>,
    pub(super) options: Options,
    pub(super) found: Found,
    pub(super) near: Near,
    depth: u32,
    /// One bit for each open parenthesis, the innermost one lowest: whether an expression may follow its end.
    marks: u64,
    /// The mark of the parenthesis that was closed last.
    pub(super) expression_after_close: bool,
    /// How deep the list of a WITH stands that has not ended.
    with_depth: Option<u32>,
    /// Open `BEGIN ATOMIC` and `CASE` of the body of a function written as SQL.
    atomic: u32,
    pub(super) flags: Flags,
}

/// What a statement is, for rules that ask for more than its command.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent findings, none of which is a state")]
pub(super) struct Flags {
    /// It may have a body between BEGIN ATOMIC and END.
    pub(super) routine: bool,
    /// It defines or names functions, but calls none of them.
    pub(super) calls_nothing: bool,
    /// EXPLAIN without ANALYZE: what is in it is planned and not run.
    pub(super) only_planned: bool,
    /// An INTO that creates a table was seen.
    into_table: bool,
    /// The view `pg_settings` was named, and an UPDATE of that is a SET.
    settings_view: bool,
}

/// Statements of one text after which [`Effects::UNCERTAIN`] is reported in any case.
const STATEMENTS_MAX: u16 = u16::MAX;

impl<'a> Scan<'a> {
    pub(in crate::state) fn new(text: &'a [u8], options: Options) -> Self {
        Self {
            lexer: Lexer::new(text, !options.standard_conforming_strings),
            options,
            found: Found::NOTHING,
            near: Near::START,
            depth: 0,
            marks: 0,
            expression_after_close: false,
            with_depth: None,
            atomic: 0,
            flags: Flags::default(),
        }
    }

    /// The number of statements (65535 also for more), what they do taken together, and what the first one is.
    pub(in crate::state) fn all(mut self) -> (u16, Effects, Command) {
        let mut count: u16 = 0;
        let mut effects = Effects::NONE;
        let mut first = Command::Empty;
        while self.step() {
            if count == 0 {
                first = self.found.command;
            }
            count = count.saturating_add(1);
            effects = effects | self.found.effects;
        }
        if count == STATEMENTS_MAX {
            effects = effects | Effects::UNCERTAIN;
        }
        (count, effects, first)
    }

    /// Reads the next statement into `found`; false at the end of the text.
    pub(in crate::state) fn step(&mut self) -> bool {
        if self.lexer.is_at_end() {
            return false;
        }
        let Some(first) = self.first_token() else {
            return false;
        };
        if self.found.span.end > 0 {
            self.forget();
        }
        self.found.span = first.start..first.end;
        self.header(first);
        self.body();
        self.finish();
        true
    }

    /// Passes semicolons; `None` at the end of the text.
    #[inline]
    fn first_token(&mut self) -> Option<Token> {
        let start = self.lexer.at();
        let (_, class) = self.lexer.advance();
        if class == Class::Letter && self.lexer.plain_word(start) > 0 {
            return Some(Token { kind: Kind::Word, start, end: self.lexer.at() });
        }
        self.lexer.go_back_to(start);
        loop {
            let token = self.lexer.next();
            match token.kind {
                Kind::End => return None,
                Kind::Semicolon => {}
                _ => return Some(token),
            }
        }
    }

    /// Forgets the statement before. The first one has none.
    fn forget(&mut self) {
        self.found = Found::NOTHING;
        self.near = Near::START;
        self.depth = 0;
        self.marks = 0;
        self.expression_after_close = false;
        self.with_depth = None;
        self.atomic = 0;
        self.flags = Flags::default();
    }

    pub(in crate::state) fn found(&self) -> &Found {
        &self.found
    }

    #[inline]
    pub(super) fn add(&mut self, effects: Effects) {
        self.found.effects = self.found.effects | effects;
    }

    /// Takes a token that a header has looked at. Never a parenthesis, a semicolon, or the end.
    pub(super) fn consume(&mut self) -> Token {
        let token = self.lexer.next();
        match token.kind {
            Kind::Word | Kind::QuotedName => self.near.name_begins(),
            Kind::Dot => self.near.dot(),
            _ => {}
        }
        self.near.last = token;
        token
    }

    #[inline]
    pub(super) fn open(&mut self) {
        let mut mark = false;
        if self.near.last.is_name() {
            let word = self.lexer.text_of(self.near.last);
            mark = matches!(word.len(), 2 | 4 | 8) && ends_before_expression(word);
            self.call();
        }
        self.push(mark);
    }

    /// `mark`: whether an expression may follow the end of this parenthesis.
    #[inline]
    pub(super) fn push(&mut self, mark: bool) {
        self.depth = self.depth.saturating_add(1);
        // Beyond 64 levels the outermost mark is lost, and `close` takes that as set.
        self.marks = self.marks << 1 | u64::from(mark);
    }

    #[inline]
    pub(super) fn close(&mut self) {
        let Some(depth) = self.depth.checked_sub(1) else {
            self.add(Effects::UNCERTAIN);
            return;
        };
        self.expression_after_close = self.depth > u64::BITS || self.marks & 1 == 1;
        self.marks >>= 1;
        self.depth = depth;
    }

    /// Whether a semicolon is not one between the statements of a rule or of the body of a function.
    pub(super) fn statement_may_end(&self) -> bool {
        self.depth == 0 && self.atomic == 0
    }

    pub(super) fn in_with_list(&self) -> bool {
        self.with_depth == Some(self.depth)
    }

    pub(super) fn begin_with_list(&mut self) {
        self.with_depth = Some(self.depth);
    }

    pub(super) fn last_is(&self, word: &[u8]) -> bool {
        self.near.last.kind == Kind::Word
            && self.lexer.text_of(self.near.last).eq_ignore_ascii_case(word)
    }

    /// A notable word, or one that only looks like it.
    pub(super) fn word(&mut self, token: Token) {
        let word = self.lexer.text_of(token);
        if let Some(keyword) =
            NOTABLE.into_iter().find(|keyword| word.eq_ignore_ascii_case(keyword))
            && self.near.last.kind != Kind::Dot
        {
            self.keyword(keyword);
        }
        if word.len() >= b"pg_temp".len() {
            self.catalogue_name(word);
        }
    }

    fn keyword(&mut self, word: &[u8]) {
        match word {
            b"with" if self.near.last.kind == Kind::Open => self.begin_with_list(),
            b"insert" | b"update" | b"delete" | b"merge" => {
                self.verb(word);
                if !self.last_is(b"for") && !self.last_is(b"key") {
                    self.add(Effects::WRITE);
                }
            }
            b"select" | b"values" | b"table" => self.verb(word),
            b"into" if self.creates_table() => {
                self.flags.into_table = true;
                self.add(Effects::DDL);
            }
            b"temp" | b"temporary" => {
                let into = self.flags.into_table && self.last_is(b"into");
                if into
                    || self.last_is(b"local")
                    || self.last_is(b"global")
                    || self.last_is(b"create")
                {
                    self.add(Effects::TEMP_OBJECT);
                }
            }
            // CREATE TABLE AS EXECUTE, perhaps explained.
            b"execute"
                if matches!(self.found.command, Command::Create | Command::Explain)
                    && self.last_is(b"as") =>
            {
                self.add(Effects::EXECUTE);
                self.found.name = self.peek_name();
            }
            b"atomic" if self.flags.routine && self.depth == 0 && self.last_is(b"begin") => {
                self.atomic = 1;
            }
            b"case" if self.atomic > 0 && self.depth == 0 => self.atomic += 1,
            b"end" if self.depth == 0 => self.atomic = self.atomic.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether this INTO is that of a SELECT, in which `insert` can be a column.
    fn creates_table(&self) -> bool {
        let of_select = self.found.command == Command::Select && self.depth == 0;
        of_select || !(self.last_is(b"insert") || self.last_is(b"merge"))
    }

    /// The verb of a statement that began with WITH.
    fn verb(&mut self, word: &[u8]) {
        let names_a_query = self.near.last.kind == Kind::Comma
            || self.last_is(b"with")
            || self.last_is(b"recursive");
        if !self.in_with_list() || names_a_query {
            return;
        }
        self.with_depth = None;
        if self.depth == 0 && self.found.command == Command::Select {
            self.found.command = match word {
                b"insert" => Command::Insert,
                b"update" => Command::Update,
                b"delete" => Command::Delete,
                b"merge" => Command::Merge,
                _ => Command::Select,
            };
        }
    }

    pub(super) fn quoted_name(&mut self, token: Token) {
        if let [b'"', name @ .., b'"'] = self.lexer.text_of(token)
            && name.first() == Some(&b'p')
        {
            self.catalogue_name(name);
        }
    }

    /// Names that matter wherever they stand: the schema of temporary objects, and views of the session itself.
    fn catalogue_name(&mut self, name: &[u8]) {
        const TEMPORARY: [&[u8]; 2] = [b"pg_temp", b"pg_toast_temp"];
        const OF_SESSION: [&[u8]; 2] = [b"pg_cursors", b"pg_prepared_statements"];
        if TEMPORARY.iter().any(|schema| starts_with(name, schema)) {
            self.add(Effects::TEMP_OBJECT);
        } else if name.eq_ignore_ascii_case(b"pg_settings") {
            self.flags.settings_view = true;
        } else if OF_SESSION.iter().any(|view| name.eq_ignore_ascii_case(view)) {
            self.add(Effects::SESSION_READ);
        }
    }

    fn finish(&mut self) {
        self.found.span.end = self.found.span.end.max(self.near.last.end);
        let effects = self.found.effects;
        if self.depth != 0 || self.atomic != 0 {
            self.add(Effects::UNCERTAIN);
        }
        if self.flags.settings_view && effects.intersects(Effects::WRITE) {
            self.add(Effects::SET_CONFIG);
        }
        if effects.intersects(Effects::SET_SESSION | Effects::SET_LOCAL | Effects::SET_CONFIG) {
            self.find_temporary_search_path();
        }
        let kept = if self.found.command == Command::Prepare {
            // Whoever executes it reads, which must be known beforehand.
            Effects::PREPARE | Effects::UNCERTAIN | Effects::SEQUENCE_READ
        } else if self.flags.only_planned {
            Effects::EXPLAIN | Effects::EXECUTE | Effects::USER_FUNCTION | Effects::UNCERTAIN
        } else if self.flags.calls_nothing {
            Effects::DDL | Effects::TEMP_OBJECT | Effects::UNCERTAIN
        } else {
            return;
        };
        self.found.effects = self.found.effects & kept;
    }

    /// With `search_path = pg_temp, …` a CREATE TABLE makes a temporary one without saying so.
    fn find_temporary_search_path(&mut self) {
        const SCHEMA: &[u8] = b"pg_temp";
        let whole =
            Token { kind: Kind::Text, start: self.found.span.start, end: self.found.span.end };
        let text = self.lexer.text_of(whole);
        let mut starts = memchr2_iter(b'p', b'P', text);
        if starts.any(|at| text.get(at..).is_some_and(|rest| starts_with(rest, SCHEMA))) {
            self.add(Effects::TEMP_OBJECT);
        }
    }
}

/// `DISTINCT ON (…) f(x)`, `OPERATOR(…) f(x)`, `RETURNING WITH (…) f(x)`: elsewhere a name behind a parenthesis is
/// an alias.
fn ends_before_expression(word: &[u8]) -> bool {
    let words: [&[u8]; 3] = [b"on", b"with", b"operator"];
    words.iter().any(|candidate| word.eq_ignore_ascii_case(candidate))
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
