//! Whether a database has code of its users that could leave something behind in a session.
//!
//! What a function, a trigger or a rule does cannot be read from the statement that runs it. It can
//! be read from the catalogue: where no source in the database speaks of session state, there is
//! nothing to look out for, and statements cost nothing extra. Where one does, the server is asked
//! after whoever may have run it; where it may do what no server can be asked for, they are pinned.
//! As long as a routine can only be run by name, that is who names it.
//! The catalogue is asked when a pool opens its first server, again now and then, and
//! after each DDL that passed through this pool: by a server that is idle, or by that of a client which would be
//! pinned for want of an answer.
//!
//! Source: <https://www.postgresql.org/docs/current/catalog-pg-proc.html>

use super::defaults::DIGEST;
use super::lease::CountedUnlent;
use super::{Pool, Pools};
use crate::server::query::QueryError;
use crate::server::{CloseReason, Server};
use crate::state::code_question::{CodeQuestion, ToldOfCode};
use crate::state::statement::Effects;
use crate::state::suspects::Suspects;
use crate::telemetry::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long what was found is believed.
const BELIEVED: Duration = Duration::from_secs(60);

/// Longest that the question may take: more than the server takes for it, so that it says so and is of use.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a question that is refused is asked.
const TRIES: u32 = 3;

/// How long a server that was asked may take, at most: until then no further one is asked the same.
const ASKED_MAX: Duration = ASK_TIMEOUT.saturating_mul(TRIES);

/// Asks for what in the catalogue leads to code that may leave something. The settings of whoever had the server before
/// do not change its answer.
///
/// First, true if something that no statement names leads there: a trigger, a rule, an operator and so on that depends
/// on such a routine; or an expression in the catalogue, or the function behind an operator or a cast, that is one of
/// PostgreSQL's own which leave something. On its own functions nothing depends, so that these must be read. Not where
/// they must be immutable: in indexes, partition keys, ranges and operator classes.
///
/// The routines outside of PostgreSQL's own are those written in a language that can do anything unseen, those
/// whose source has a word that session state is made of, and those that use or speak of one of these by name (which is
/// not looked for in more than a megabyte of sources). Defaults of arguments belong to the source; that of an aggregate
/// is its functions. Routines in C that belong to an extension are trusted, but for those known to keep state, and
/// those known to run a text of their caller: by whatever name, so that they are told by their symbols. `refint` has
/// such a text in the arguments of its triggers. Their sources are names of symbols, and call nothing. The validator
/// of `dblink`, on which its foreign data wrapper depends, keeps nothing.
///
/// Second, true if one of them may leave what cannot be asked for: a seed, a library, a connection, or a
/// custom setting with a name that it makes up. Third, the custom settings whose names are spelled out. Fourth,
/// true if values of sequences are asked for. Fifth, the names of these routines. Sixth, true if what leads to
/// them may be run by reading: a view, a policy, an operator, a domain and so on.
///
/// The recursion makes the planner expect far more than there is: compiled just in time, it would take seconds.
///
/// Sources: <https://www.postgresql.org/docs/current/catalogs.html>,
/// <https://www.postgresql.org/docs/current/catalog-pg-depend.html>
const HIDDEN_CODE_QUERY: &str = include_str!("hidden_code.sql");

/// Most names of custom settings taken from code; a database whose code has more counts as opaque.
const NAMES_MAX: usize = 100;

/// Most names of routines that statements are searched for; where there are more, any code is suspected.
const SUSPECTS_MAX: usize = 200;

/// What is known of a database's code.
#[derive(Default)]
pub(super) struct Profile {
    /// Nobody has said that there is none.
    clear: AtomicBool,
    /// Where that is so: the routines to look out for, if they and no others can leave something.
    suspects: parking_lot::RwLock<Option<Arc<Suspects>>>,
    /// Counts what was said.
    seen: AtomicU32,
    /// DDL has made it void, and nobody asks yet.
    void: AtomicBool,
    /// It was time to ask, and no server was idle.
    overdue: AtomicBool,
    /// Some of it is run by reading, as far as the catalogue was asked.
    read: AtomicBool,
    /// None of it does what cannot be asked for.
    transparent: AtomicBool,
    /// Custom settings that it may set.
    names: parking_lot::RwLock<Arc<[Box<str>]>>,
    ddl_seen: AtomicU64,
    asked: parking_lot::Mutex<Asked>,
}

/// How much is known of the code, and as of when.
#[derive(Default)]
struct Asked {
    /// When the last answer came, if it is still of use.
    at: Option<Instant>,
    /// How often the code was seen to change.
    changes: u64,
    /// Since when a server is being asked, and as of which of these changes.
    asking: Option<(Instant, u64)>,
}

impl Profile {
    fn set_suspects(&self, suspects: Option<Arc<Suspects>>) {
        *self.suspects.write() = suspects;
        self.note_seen();
    }

    /// What is known of this pool may have changed.
    pub(super) fn note_seen(&self) {
        self.seen.fetch_add(1, Ordering::Release);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.asked.lock().at.is_none_or(|at| now.saturating_duration_since(at) >= BELIEVED)
    }

    /// The same, unless a server is being asked already.
    fn is_to_be_asked(&self, now: Instant) -> bool {
        let asked = self.asked.lock();
        let is_asked = asked.asking.is_some_and(|(since, as_of)| {
            as_of == asked.changes && now.saturating_duration_since(since) < ASKED_MAX
        });
        drop(asked);
        !is_asked && self.is_due(now)
    }

    /// A server is asked from now on. Yields the number to be given to [`Profile::note`].
    fn begin_to_ask(&self, now: Instant) -> u64 {
        let mut asked = self.asked.lock();
        asked.asking = Some((now, asked.changes));
        asked.changes
    }

    /// The server that was asked has not answered.
    fn ask_in_vain(&self) {
        self.asked.lock().asking = None;
    }

    /// Takes the answer to a question, unless there was more DDL while it was on its way.
    fn note(&self, found: Found, as_of: u64, now: Instant) {
        let mut asked = self.asked.lock();
        if asked.changes != as_of {
            return;
        }
        self.set_suspects(found.suspects.map(Arc::new));
        self.clear.store(!found.hidden, Ordering::Relaxed);
        self.read.store(found.read, Ordering::Relaxed);
        self.transparent.store(!found.opaque, Ordering::Relaxed);
        *self.names.write() = found.names.into();
        asked.at = Some(now);
        asked.asking = None;
        self.overdue.store(false, Ordering::Relaxed);
    }

    /// DDL has changed the code.
    fn forget(&self) {
        let mut asked = self.asked.lock();
        asked.changes += 1;
        asked.at = None;
        self.set_suspects(None);
        self.clear.store(false, Ordering::Relaxed);
        self.transparent.store(false, Ordering::Relaxed);
        // It may be a view. Whoever comes first has its own server tell.
        self.read.store(true, Ordering::Relaxed);
        self.void.store(true, Ordering::Release);
    }
}

/// What the catalogue said.
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
struct Found {
    hidden: bool,
    read: bool,
    opaque: bool,
    names: Vec<Box<str>>,
    reads_sequences: bool,
    suspects: Option<Suspects>,
}

impl Found {
    /// What must be feared where nobody can tell. Not that reading runs it: then nobody could share a server.
    const ANYTHING: Self = Self {
        hidden: true,
        read: false,
        opaque: true,
        names: Vec::new(),
        reads_sequences: true,
        suspects: None,
    };

    fn of(row: Option<&[Option<String>]>) -> Self {
        let Some([reached, opaque, Some(names), reads, Some(suspects), read]) = row else {
            return Self::ANYTHING;
        };
        let names: Vec<Box<str>> =
            names.split(',').filter(|name| !name.is_empty()).map(Into::into).collect();
        if names.len() > NAMES_MAX {
            return Self::ANYTHING;
        }
        let says_no = |answer: &Option<String>| answer.as_deref() == Some("f");
        let reached = !says_no(reached);
        let routines: Vec<&str> = suspects.split(',').filter(|name| !name.is_empty()).collect();
        let nameable = !reached && routines.len() <= SUSPECTS_MAX;
        Self {
            hidden: reached || !routines.is_empty(),
            read: !says_no(read),
            suspects: if nameable { Suspects::of(routines) } else { None },
            opaque: !says_no(opaque),
            names,
            reads_sequences: !says_no(reads),
        }
    }
}

impl Pool {
    /// True unless it is known that no code of users leaves what a server cannot be asked for.
    #[must_use]
    pub fn has_opaque_code(&self) -> bool {
        !self.profile.transparent.load(Ordering::Relaxed)
    }

    /// Custom settings that code of users may set, in lower case.
    #[must_use]
    pub fn settings_in_code(&self) -> Arc<[Box<str>]> {
        Arc::clone(&self.profile.names.read())
    }

    /// True unless it is known that no code of users can leave anything behind.
    #[must_use]
    pub fn has_hidden_code(&self) -> bool {
        !self.profile.clear.load(Ordering::Relaxed)
    }

    /// True if reading may run some of that, as it may until the catalogue is asked again after DDL.
    #[must_use]
    pub fn has_code_in_reads(&self) -> bool {
        self.profile.read.load(Ordering::Relaxed)
    }

    /// The routines that may leave something, if a statement must name one of them to run it.
    #[must_use]
    pub fn suspects(&self) -> Option<Arc<Suspects>> {
        self.profile.suspects.read().clone()
    }

    /// Changes when [`Pool::suspects`] or [`Pool::baseline`] may have.
    #[must_use]
    pub fn code_seen(&self) -> u32 {
        self.profile.seen.load(Ordering::Acquire)
    }

    /// How often clients of this database ran DDL that the servers of this pool may feel.
    #[must_use]
    pub fn ddl_seen(&self) -> u64 {
        self.profile.ddl_seen.load(Ordering::Relaxed)
    }

    /// A client of this pool has done this, DDL among it: no server of the database goes on with what it has prepared.
    /// That is so for this pool alone where the DDL is about temporary objects, which are nobody else's.
    pub fn note_ddl(&self, done: Effects) {
        let note = |pool: &Self| {
            pool.profile.ddl_seen.fetch_add(1, Ordering::Relaxed);
        };
        if done.intersects(Effects::TEMP_OBJECT | Effects::DISCARD_TEMP) {
            note(self);
        } else {
            self.for_database(note);
        }
    }

    /// A client's DDL may have changed code: what is known of the database's code is void, whoever uses it.
    pub fn note_code(&self) {
        self.for_database(|pool| pool.profile.forget());
    }

    /// Does something with all pools of this one's database.
    fn for_database(&self, act: impl Fn(&Self)) {
        let by_name = self.pools.by_name.read();
        by_name.values().filter(|pool| pool.database == self.database).for_each(|pool| act(pool));
    }

    /// True, once after DDL or when it is overdue: the next server that is free is to be asked.
    pub(super) fn is_to_ask(&self) -> bool {
        let take =
            |flag: &AtomicBool| flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::AcqRel);
        take(&self.profile.void) || take(&self.profile.overdue)
    }

    /// Asks an idle server, in the background, and gives it back.
    pub(super) fn ask_for_code(self: &Arc<Self>, mut server: Box<Server>) {
        let pool = Arc::clone(self);
        let Some(runtime) = self.pools.runtime(server.worker) else {
            return self.close(server, CloseReason::Shutdown);
        };
        let unlent = CountedUnlent::of(self);
        runtime.spawn(async move {
            let examined = match server.check_idle() {
                // Another one may be asked by now.
                Ok(()) if !pool.profile.is_to_be_asked(clock::now()) => Ok(()),
                Ok(()) => pool.examine(&mut server).await,
                Err(reason) => Err(reason),
            };
            drop(unlent);
            if let Err(reason) = examined {
                return pool.close(server, reason);
            }
            if server.is_clean() {
                pool.give_back(server, clock::now());
            } else {
                pool.close(server, CloseReason::NotClean);
            }
        });
    }

    /// Asks a server that owes nothing, if it is time to.
    ///
    /// # Errors
    /// [`CloseReason`]: the server may still owe its answer, and must be closed.
    pub(super) async fn examine(self: &Arc<Self>, server: &mut Server) -> Result<(), CloseReason> {
        let now = clock::now();
        if !self.profile.is_due(now) {
            return Ok(());
        }
        let as_of = self.profile.begin_to_ask(now);
        let question = [HIDDEN_CODE_QUERY, DIGEST].join(";");
        let mut found = Found::ANYTHING;
        for _ in 0..TRIES {
            let asked = tokio::time::timeout(ASK_TIMEOUT, server.query(&question)).await;
            match asked {
                Ok(Ok(rows)) => {
                    if let Some(digest) = rows.get(1).and_then(|row| row.first()?.as_deref()) {
                        self.note_digest(digest);
                    }
                    found = Found::of(rows.first().map(Vec::as_slice));
                    break;
                }
                // Perhaps because of what was dropped meanwhile.
                Ok(Err(QueryError::Refused { .. })) => {}
                Ok(Err(QueryError::Io(_))) => {
                    self.profile.ask_in_vain();
                    return Err(CloseReason::ClosedByServer);
                }
                Err(_) => {
                    self.profile.ask_in_vain();
                    return Err(CloseReason::NotClean);
                }
            }
        }
        self.learn_of_code(found, as_of, now);
        Ok(())
    }

    /// What a client's own server is to be asked of the code in the database, if nothing is known of it.
    /// [`Pool::told_of_code`] takes the answer.
    pub fn question_of_code(&self) -> Option<CodeQuestion> {
        let mut asked = self.profile.asked.lock();
        if asked.at.is_some() {
            return None;
        }
        asked.asking = Some((clock::now(), asked.changes));
        self.profile.void.store(false, Ordering::Release);
        Some(CodeQuestion { text: HIDDEN_CODE_QUERY, as_of: asked.changes })
    }

    /// The answer to [`Pool::question_of_code`].
    pub fn told_of_code(&self, told: &ToldOfCode, now: Instant) {
        match &told.row {
            Some(row) => self.learn_of_code(Found::of(Some(row)), told.as_of, now),
            // That may be due to the client: others do not suffer for it, and another server is asked.
            None => {
                self.profile.ask_in_vain();
                self.profile.void.store(true, Ordering::Release);
            }
        }
    }

    fn learn_of_code(&self, found: Found, as_of: u64, now: Instant) {
        if found.opaque {
            tracing::info!(
                database = %self.database,
                "the database has functions that may keep session state unseen: statements that may run them pin"
            );
        }
        if found.reads_sequences {
            self.sequences.note_code();
        }
        self.profile.note(found, as_of, now);
    }
}

impl Pools {
    /// Asks again, in the background and by an idle server or the next that is free, where that is due.
    pub(super) fn examine_again(self: &Arc<Self>) {
        let now = clock::now();
        let pools: Vec<Arc<Pool>> = self.by_name.read().values().map(Arc::clone).collect();
        for pool in pools {
            if !pool.profile.is_to_be_asked(now) {
                continue;
            }
            let idle = self.core.lock().borrow(pool.id, 0, 0);
            match idle {
                Some(idle) => pool.ask_for_code(idle.server),
                None => pool.profile.overdue.store(true, Ordering::Relaxed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: [&str; 6] = ["f", "f", "", "f", "", "f"];

    fn nothing() -> Found {
        Found::of(Some(&NOTHING.map(|column| Some(column.to_owned()))))
    }

    #[test]
    fn an_answer_from_before_a_change_is_worth_nothing_whoever_has_asked_since() {
        let (profile, now) = (Profile::default(), clock::now());
        let first = profile.begin_to_ask(now);
        profile.forget();
        let second = profile.begin_to_ask(now);
        // A second one asks.
        profile.void.store(false, Ordering::Release);
        profile.note(nothing(), first, now);
        assert!(!profile.clear.load(Ordering::Relaxed) && profile.is_due(now));
        profile.note(nothing(), second, now);
        assert!(profile.clear.load(Ordering::Relaxed) && !profile.is_due(now));
        profile.forget();
        assert!(!profile.clear.load(Ordering::Relaxed) && profile.is_due(now));
    }
    #[test]
    fn while_a_server_is_asked_no_other_one_is_asked_the_same() {
        let (profile, now) = (Profile::default(), clock::now());
        assert!(profile.is_to_be_asked(now));
        profile.begin_to_ask(now);
        assert!(!profile.is_to_be_asked(now + ASKED_MAX / 2));
        assert!(profile.is_to_be_asked(now + ASKED_MAX), "nobody knows what has become of it");
        profile.forget();
        assert!(profile.is_to_be_asked(now), "its answer will be worth nothing");
        let as_of = profile.begin_to_ask(now);
        profile.ask_in_vain();
        assert!(profile.is_to_be_asked(now));
        profile.begin_to_ask(now);
        profile.note(nothing(), as_of, now);
        assert!(!profile.is_to_be_asked(now) && profile.is_to_be_asked(now + BELIEVED));
    }
}
