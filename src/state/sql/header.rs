//! The first words of a statement: what it does, and to what.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-commands.html> and `src/backend/parser/gram.y`

use super::classify::Scan;
use super::lexer::{Kind, Token};
use crate::state::statement::{Command, Effects};

/// Longest of the words that a statement can begin with (`deallocate`).
const LEADER_MAX: usize = 10;

/// Looked for first, as they have no header.
const FREQUENT: [(&[u8], Command, Effects); 5] = [
    (b"select", Command::Select, Effects::NONE),
    (b"insert", Command::Insert, Effects::WRITE),
    (b"update", Command::Update, Effects::WRITE),
    (b"delete", Command::Delete, Effects::WRITE),
    (b"begin", Command::Begin, Effects::TRANSACTION_BEGIN),
];

impl Scan<'_> {
    /// Reads the header of the statement that begins with `first`, which is not the end of the text.
    pub(super) fn header(&mut self, first: Token) {
        self.near.last = first;
        match first.kind {
            Kind::Word => self.leader(first),
            Kind::Open => {
                self.found.command = Command::Select;
                self.near.last = Token::START;
                self.open();
                self.near.last = first;
            }
            _ => self.add(Effects::UNCERTAIN),
        }
    }

    fn leader(&mut self, token: Token) {
        let word = self.lexer.text_of(token);
        if let Some((_, command, effects)) =
            FREQUENT.iter().find(|(frequent, ..)| word.eq_ignore_ascii_case(frequent))
        {
            self.found.command = *command;
            self.add(*effects);
            return;
        }
        let mut folded = [0; LEADER_MAX];
        let folded = match folded.get_mut(..word.len()) {
            Some(folded) => {
                folded.copy_from_slice(word);
                folded.make_ascii_lowercase();
                &*folded
            }
            None => &[],
        };
        let (command, effects) = plain(folded);
        self.found.command = command;
        self.add(effects);
        match folded {
            b"with" => self.begin_with_list(),
            b"set" => self.set(),
            b"reset" => self.reset(),
            b"show" => self.show(),
            b"commit" | b"end" | b"rollback" | b"abort" => self.end_transaction(),
            b"release" => self.skip_then_name(b"savepoint"),
            b"prepare" => self.prepare(),
            b"deallocate" => self.deallocate(),
            b"execute" | b"savepoint" | b"listen" | b"notify" => self.take_name(),
            b"unlisten" => self.unlisten(),
            b"declare" => self.declare(),
            b"close" => self.close_cursor(),
            b"fetch" | b"move" => self.fetch(),
            b"discard" => self.discard(),
            b"create" => self.create(),
            b"alter" => self.alter(),
            b"drop" | b"comment" | b"grant" | b"revoke" | b"security" | b"reassign" => {
                self.flags.calls_nothing = true;
            }
            b"copy" => self.copy(),
            b"explain" => self.explain(),
            _ => {}
        }
    }

    /// `SET [SESSION | LOCAL] …`
    fn set(&mut self) {
        let mut local = false;
        if !self.is_assigned() {
            local = self.accept(b"local");
            if !local {
                self.accept(b"session");
            }
        }
        if self.is_assigned() {
            let particular = self.named_setting();
            self.add(of_set(local, particular));
            return;
        }
        // SET TRANSACTION and SET CONSTRAINTS end with the transaction.
        if self.accept_unless_assigned(b"transaction") {
            self.found.command = Command::SetTransaction;
            return;
        }
        if self.accept_unless_assigned(b"constraints") {
            self.found.command = Command::SetConstraints;
            return;
        }
        // Of SET [LOCAL | SESSION] SESSION AUTHORIZATION.
        self.accept_unless_assigned(b"session");
        if self.accept_unless_assigned(b"characteristics") {
            self.found.command = Command::SetCharacteristics;
            self.add(of_set(local, Effects::NONE));
            return;
        }
        let particular = self.setting();
        self.add(of_set(local, particular));
    }

    fn reset(&mut self) {
        if self.accept(b"all") {
            self.found.command = Command::ResetAll;
            self.add(Effects::RESET_ALL);
            return;
        }
        self.accept_if_two_words(b"session");
        let particular = self.setting();
        self.add(if particular.is_empty() { Effects::SET_SESSION } else { particular });
    }

    fn show(&mut self) {
        if !self.accept(b"all") {
            self.accept_if_two_words(b"session");
            self.setting();
        }
    }

    /// The setting that SET, RESET or SHOW names, and its own effect if it is not a mere setting.
    fn setting(&mut self) -> Effects {
        const SPELLED: [(&[u8], &str); 4] = [
            (b"names", "client_encoding"),
            (b"role", "role"),
            (b"schema", "search_path"),
            (b"authorization", "session_authorization"),
        ];
        const SPELLED_IN_TWO: [(&[u8], &str); 3] = [
            (b"time", "timezone"),
            (b"xml", "xmloption"),
            (b"transaction", "transaction_isolation"),
        ];
        let one = SPELLED.into_iter().find(|(word, _)| self.accept_unless_assigned(word));
        let found = one.or_else(|| {
            SPELLED_IN_TWO.into_iter().find(|(word, _)| self.accept_if_two_words(word))
        });
        if let Some((_, setting)) = found {
            self.found.setting = Some(setting);
            return of_setting(setting.as_bytes());
        }
        self.named_setting()
    }

    fn named_setting(&mut self) -> Effects {
        self.take_name();
        while !self.found.name.is_empty() && self.peek().kind == Kind::Dot {
            self.consume();
            if !self.peek().is_name() {
                break;
            }
            self.found.name.end = self.consume().end;
        }
        of_setting(&self.found_name().to_ascii_lowercase())
    }

    fn end_transaction(&mut self) {
        if self.peek_is(b"prepared") {
            // Of the definitions that may be in it, others know only now.
            (self.found.command, self.found.effects) = match self.found.command {
                Command::Commit => (Command::CommitPrepared, Effects::DDL),
                _ => (Command::RollbackPrepared, Effects::NONE),
            };
            return;
        }
        if !self.accept(b"work") {
            self.accept(b"transaction");
        }
        if self.found.command == Command::Rollback && self.accept(b"to") {
            self.found.command = Command::RollbackTo;
            self.found.effects = Effects::SAVEPOINT;
            self.skip_then_name(b"savepoint");
        } else if self.accept(b"and") && self.accept(b"chain") {
            self.add(Effects::TRANSACTION_BEGIN);
        }
    }

    fn prepare(&mut self) {
        if self.peek_is(b"transaction") && self.peek_second().kind == Kind::Text {
            self.found.command = Command::PrepareTransaction;
            self.found.effects = Effects::TRANSACTION_END;
            return;
        }
        self.take_name();
        let mut ahead = self.lexer;
        loop {
            let token = ahead.next();
            match token.kind {
                Kind::End | Kind::Semicolon | Kind::Broken => return,
                Kind::Word if self.lexer.text_of(token).eq_ignore_ascii_case(b"as") => break,
                _ => {}
            }
        }
        self.found.body = ahead.next().start;
    }

    fn deallocate(&mut self) {
        if self.peek_is(b"prepare") && self.second_is_name() {
            self.consume();
        }
        if self.accept(b"all") {
            self.found.command = Command::DeallocateAll;
        } else {
            self.take_name();
        }
    }

    fn unlisten(&mut self) {
        if self.peek().kind == Kind::Operator {
            self.found.command = Command::UnlistenAll;
        } else {
            self.take_name();
        }
    }

    fn declare(&mut self) {
        self.take_name();
        while self.peek().kind == Kind::Word {
            let token = self.consume();
            if self.lexer.text_of(token).eq_ignore_ascii_case(b"for") {
                self.found.body = self.peek().start;
                return;
            }
            if self.lexer.text_of(token).eq_ignore_ascii_case(b"with") && self.peek_is(b"hold") {
                self.add(Effects::DECLARE_HOLD);
            }
        }
    }

    fn close_cursor(&mut self) {
        if self.accept(b"all") {
            self.found.command = Command::CloseAll;
            self.found.effects = Effects::CLOSE_ALL;
        } else {
            self.take_name();
        }
    }

    /// The cursor is named last: `FETCH FORWARD 5 FROM c`.
    fn fetch(&mut self) {
        while matches!(
            self.peek().kind,
            Kind::Word | Kind::QuotedName | Kind::Number | Kind::Operator
        ) {
            let token = self.consume();
            if token.is_name() {
                self.found.name = token.start..token.end;
            }
        }
    }

    fn discard(&mut self) {
        let kinds: [(&[u8], Effects); 5] = [
            (b"all", Effects::DISCARD_ALL),
            (b"plans", Effects::DISCARD_PLANS),
            (b"sequences", Effects::DISCARD_SEQUENCES),
            (b"temp", Effects::DISCARD_TEMP),
            (b"temporary", Effects::DISCARD_TEMP),
        ];
        let effects =
            kinds.into_iter().find_map(|(word, effects)| self.accept(word).then_some(effects));
        self.add(effects.unwrap_or(Effects::UNCERTAIN));
    }

    /// `CREATE [OR REPLACE] [TEMP] … object`
    fn create(&mut self) {
        const BEFORE_OBJECT: [&[u8]; 10] = [
            b"or",
            b"replace",
            b"global",
            b"local",
            b"unlogged",
            b"recursive",
            b"trusted",
            b"procedural",
            b"constraint",
            b"event",
        ];
        const CALLING_NOTHING: [&[u8]; 12] = [
            b"function",
            b"procedure",
            b"aggregate",
            b"trigger",
            b"operator",
            b"cast",
            b"view",
            b"rule",
            b"policy",
            b"type",
            b"transform",
            b"statistics",
        ];
        loop {
            if self.accept(b"temp") || self.accept(b"temporary") {
                self.add(Effects::TEMP_OBJECT);
            } else if !BEFORE_OBJECT.iter().any(|word| self.accept(word)) {
                break;
            }
        }
        self.flags.routine = self.peek_is(b"function") || self.peek_is(b"procedure");
        self.flags.calls_nothing = CALLING_NOTHING.iter().any(|word| self.peek_is(word));
        self.extension();
    }

    fn alter(&mut self) {
        const CALLING_NOTHING: [&[u8]; 5] =
            [b"function", b"procedure", b"routine", b"aggregate", b"operator"];
        self.flags.calls_nothing = CALLING_NOTHING.iter().any(|word| self.peek_is(word));
        self.extension();
    }

    /// The script of an extension may do anything.
    fn extension(&mut self) {
        if self.peek_is(b"extension") {
            self.add(Effects::USER_FUNCTION);
        }
    }

    /// `COPY … FROM` writes; the FROM of a query is inside of parentheses.
    fn copy(&mut self) {
        let mut ahead = self.lexer;
        let mut depth = 0_u32;
        loop {
            let token = ahead.next();
            match token.kind {
                Kind::Open => depth = depth.saturating_add(1),
                Kind::Close => depth = depth.saturating_sub(1),
                Kind::Word if depth == 0 && self.word_is(token, b"to") => return,
                Kind::Word if depth == 0 && self.word_is(token, b"from") => {
                    self.add(Effects::WRITE);
                    return;
                }
                Kind::Semicolon | Kind::End | Kind::Broken => return,
                _ => {}
            }
        }
    }

    fn explain(&mut self) {
        self.flags.only_planned = !self.explain_analyzes();
        let begin = self.peek();
        self.found.body = begin.start;
        if begin.kind == Kind::Word {
            let token = self.lexer.next();
            self.near.last = token;
            // An EXPLAIN in an EXPLAIN is an error, and must not become a recursion.
            if self.lexer.text_of(token).eq_ignore_ascii_case(b"explain") {
                self.add(Effects::UNCERTAIN);
            } else {
                self.leader(token);
            }
            self.found.command = Command::Explain;
        }
    }

    /// Reads `ANALYZE VERBOSE` or `(option, …)`. An `ANALYZE off` counts as ANALYZE.
    fn explain_analyzes(&mut self) -> bool {
        const QUERIES: [&[u8]; 4] = [b"select", b"values", b"with", b"table"];
        let mut analyzes = false;
        while self.peek_is(b"analyze") || self.peek_is(b"analyse") || self.peek_is(b"verbose") {
            analyzes |= !self.peek_is(b"verbose");
            self.consume();
        }
        let mut ahead = self.lexer;
        if ahead.next().kind != Kind::Open
            || QUERIES.iter().any(|word| self.word_is(self.peek_second(), word))
        {
            return analyzes;
        }
        loop {
            let token = ahead.next();
            match token.kind {
                Kind::Close => {
                    self.lexer = ahead;
                    self.near.last = token;
                    return analyzes;
                }
                Kind::Open | Kind::Semicolon | Kind::End | Kind::Broken => return analyzes,
                _ => analyzes |= self.word_is(token, b"analyze") || self.word_is(token, b"analyse"),
            }
        }
    }
}

/// What a SET does to a setting that has this effect of its own, if it has one.
fn of_set(local: bool, particular: Effects) -> Effects {
    match (local, particular) {
        // What cannot be taken back is so at the end of the transaction too.
        (true, _) => Effects::SET_LOCAL | (particular & Effects::SESSION_FUNCTION),
        (false, Effects::NONE) => Effects::SET_SESSION,
        (false, _) => particular,
    }
}

fn of_setting(name: &[u8]) -> Effects {
    match name {
        b"role" | b"\"role\"" => Effects::SET_ROLE,
        b"session_authorization" | b"\"session_authorization\"" => {
            Effects::SET_SESSION_AUTHORIZATION
        }
        // The seed of random() can be set, and not read.
        b"seed" | b"\"seed\"" => Effects::SET_SESSION | Effects::SESSION_FUNCTION,
        _ => Effects::NONE,
    }
}

/// What the first word alone says.
fn plain(word: &[u8]) -> (Command, Effects) {
    match word {
        b"with" => (Command::Select, Effects::NONE),
        b"merge" => (Command::Merge, Effects::WRITE),
        b"values" => (Command::Values, Effects::NONE),
        b"table" => (Command::Table, Effects::NONE),
        b"start" => (Command::Begin, Effects::TRANSACTION_BEGIN),
        b"commit" | b"end" => (Command::Commit, Effects::TRANSACTION_END),
        b"rollback" | b"abort" => (Command::Rollback, Effects::TRANSACTION_END),
        b"savepoint" => (Command::Savepoint, Effects::SAVEPOINT),
        b"release" => (Command::Release, Effects::SAVEPOINT),
        b"set" => (Command::Set, Effects::NONE),
        b"reset" => (Command::Reset, Effects::NONE),
        b"show" => (Command::Show, Effects::SHOW),
        b"discard" => (Command::Discard, Effects::NONE),
        b"prepare" => (Command::Prepare, Effects::PREPARE),
        b"execute" => (Command::Execute, Effects::EXECUTE),
        b"deallocate" => (Command::Deallocate, Effects::DEALLOCATE),
        b"listen" => (Command::Listen, Effects::LISTEN),
        b"unlisten" => (Command::Unlisten, Effects::UNLISTEN),
        b"notify" => (Command::Notify, Effects::NOTIFY),
        b"declare" => (Command::Declare, Effects::DECLARE_CURSOR),
        b"fetch" => (Command::Fetch, Effects::FETCH),
        b"move" => (Command::Move, Effects::FETCH),
        b"close" => (Command::Close, Effects::CLOSE),
        b"load" => (Command::Load, Effects::LOAD),
        b"do" => (Command::Do, Effects::DO),
        b"call" => (Command::Call, Effects::CALL),
        b"copy" => (Command::Copy, Effects::COPY),
        b"truncate" => (Command::Truncate, Effects::WRITE),
        b"create" => (Command::Create, Effects::DDL),
        b"alter" => (Command::Alter, Effects::DDL),
        b"drop" => (Command::Drop, Effects::DDL),
        b"comment" | b"grant" | b"revoke" | b"security" | b"reassign" | b"import" => {
            (Command::OtherDefinition, Effects::DDL)
        }
        b"explain" => (Command::Explain, Effects::EXPLAIN),
        b"refresh" => (Command::Refresh, Effects::WRITE | Effects::DDL),
        b"cluster" | b"reindex" => (Command::Maintenance, Effects::DDL),
        b"vacuum" | b"analyze" | b"analyse" => (Command::Maintenance, Effects::WRITE),
        b"lock" => (Command::Lock, Effects::NONE),
        b"checkpoint" => (Command::Checkpoint, Effects::NONE),
        _ => (Command::Unknown, Effects::UNCERTAIN),
    }
}
