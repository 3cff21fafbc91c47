//! Whether a database has code of its users that could leave something behind in a session.
//!
//! What a function, a trigger or a rule does cannot be read from the statement that runs it. It can
//! be read from the catalogue: where no source in the database speaks of session state, there is
//! nothing to look out for, and statements cost nothing extra. Where one does, the server is asked
//! after whoever may have run it; where it may do what no server can be asked for, they are pinned.
//! As long as a routine can only be run by name, that is who names it.
//! The catalogue is asked when a pool opens its first server, again now and then, and
//! after each DDL that passed through this pool.
//!
//! Source: <https://www.postgresql.org/docs/current/catalog-pg-proc.html>

use super::defaults::DIGEST;
use super::{Pool, Pools};
use crate::server::query::{QueryError, Rows};
use crate::server::{CloseReason, Server};
use crate::state::suspects::Suspects;
use crate::telemetry::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long what was found is believed.
const BELIEVED: Duration = Duration::from_secs(60);

/// Longest that the question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// First, true if something that no statement names leads to code that may leave something: a trigger, a rule, an
/// operator and so on that depends on such a routine, or an expression in the catalogue that speaks of session state
/// itself. The routines outside of PostgreSQL's own are those written in a language that can do anything unseen, those
/// whose source has a word that session state is made of, and those that use or speak of one of these by name (which is
/// not looked for in more than a megabyte of sources). Routines
/// in C that belong to an extension are trusted, but for those known to keep state.
///
/// Second, true if one of them may leave what cannot be asked for: a seed, a library, a connection, or a
/// custom setting with a name that it makes up. Third, the custom settings whose names it spells out. Fourth,
/// true if it asks for values of sequences. Fifth, the names of these routines. Sixth, true if what leads to
/// them may be run by reading: a view, a policy, an operator, a domain and so on.
///
/// The recursion makes the planner expect far more than there is: compiled just in time, it would take seconds.
const HIDDEN_CODE_QUERY: &str = r#"SET LOCAL jit = off;
WITH RECURSIVE routine AS MATERIALIZED (
  SELECT p.oid, pg_catalog.lower(p.proname) AS name, l.lanname AS language,
    pg_catalog.lower(coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc, '')) AS source
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
), size AS (
  SELECT coalesce(pg_catalog.sum(pg_catalog.length(source)), 0) <= 1000000 AS is_small FROM routine
), rule AS MATERIALIZED (
  SELECT r.oid FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
), expression AS MATERIALIZED (
  SELECT pg_catalog.pg_get_ruledef(oid) AS source, true AS is_read FROM rule
  UNION ALL SELECT coalesce(pg_catalog.pg_get_expr(polqual, polrelid), '')
    || coalesce(pg_catalog.pg_get_expr(polwithcheck, polrelid), ''), true FROM pg_catalog.pg_policy
  UNION ALL SELECT pg_catalog.pg_get_expr(adbin, adrelid), false FROM pg_catalog.pg_attrdef
  UNION ALL SELECT pg_catalog.pg_get_constraintdef(oid), contypid <> 0 FROM pg_catalog.pg_constraint
    WHERE contype = 'c'
), found AS (
  SELECT r.oid, r.name FROM routine r
  WHERE CASE
    WHEN r.language IN ('sql', 'plpgsql') THEN
      r.source ~ '\m(set_config|setseed|listen|unlisten|load|discard|prepare|deallocate|temp|temporary|pg_temp|execute|dblink\w*|role|authorization|pg_(try_)?advisory_lock\w*|pg_advisory_unlock\w*|with\s+hold)\M'
      OR r.source ~ '(^|;|\m(begin|then|else|loop)\M)\s*(re)?set\s'
      OR pg_catalog.strpos(r.source, 'u&"') > 0
    WHEN r.language IN ('c', 'internal') THEN
      r.name ~ '^(dblink|set_limit)'
      OR NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND d.objid = r.oid AND d.deptype = 'e')
    ELSE true
  END
  UNION SELECT r.oid, r.name FROM found f JOIN routine r ON (SELECT is_small FROM size)
    AND (pg_catalog.strpos(r.source, f.name) > 0
      OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = f.oid))
), suspect AS MATERIALIZED (SELECT * FROM found LIMIT 201)
SELECT (SELECT NOT is_small FROM size) AND EXISTS (SELECT FROM suspect)
OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN suspect s ON d.refobjid = s.oid
  WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  AND d.classid <> 'pg_catalog.pg_proc'::pg_catalog.regclass)
OR EXISTS (SELECT FROM expression
  WHERE source ~* '\m(set_config|setseed|pg_(try_)?advisory_lock\w*|dblink\w*|query_to_xml\w*)\M'),
EXISTS (SELECT FROM routine r
  WHERE CASE
    WHEN r.language IN ('sql', 'plpgsql') THEN
      r.source ~ '\m(setseed|dblink\w*|set_limit|deallocate)\M'
      OR r.source ~ '\mload\s+''|''\s*load\s'
      OR r.source ~ 'set_config\s*\(\s*[^\s'']'
      OR r.source ~ 'set_config\s*\(\s*''[^'']*''\s*[^,:[:space:]]'
      OR (r.source ~ '\mexecute\M' AND r.source ~ '''\s*(re)?set\s')
    WHEN r.language IN ('c', 'internal') THEN
      r.name ~ '^(dblink|set_limit)'
      OR NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND d.objid = r.oid AND d.deptype = 'e')
    ELSE true
  END)
OR EXISTS (SELECT FROM expression WHERE source ~* '\m(set_config|setseed|dblink\w*|query_to_xml\w*)\M'),
(SELECT coalesce(pg_catalog.string_agg(DISTINCT m[1], ','), '')
  FROM routine r CROSS JOIN LATERAL pg_catalog.regexp_matches(r.source,
    '(?:set_config\s*\(\s*''|\mset\s+(?:session\s+)?)([a-z_][a-z0-9_$]*(?:\.[a-z_][a-z0-9_$]*)+)', 'g') AS m),
EXISTS (SELECT FROM routine WHERE source ~ '\m(currval|lastval)\M')
OR EXISTS (SELECT FROM expression WHERE source ~* '\m(currval|lastval)\M'),
(SELECT coalesce(pg_catalog.string_agg(DISTINCT name, ','), '') FROM suspect),
(SELECT NOT is_small FROM size) AND EXISTS (SELECT FROM suspect)
OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN suspect s ON d.refobjid = s.oid
  WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  AND d.classid NOT IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass,
    'pg_catalog.pg_event_trigger'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass))
OR EXISTS (SELECT FROM expression WHERE is_read
  AND source ~* '\m(set_config|setseed|pg_(try_)?advisory_lock\w*|dblink\w*|query_to_xml\w*)\M')"#;

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
    asked: parking_lot::Mutex<Option<Instant>>,
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
        self.asked.lock().is_none_or(|at| now.saturating_duration_since(at) >= BELIEVED)
    }

    fn note(&self, found: Found, now: Instant) {
        self.set_suspects(found.suspects.map(Arc::new));
        self.clear.store(!found.hidden, Ordering::Relaxed);
        self.read.store(found.read, Ordering::Relaxed);
        self.transparent.store(!found.opaque, Ordering::Relaxed);
        *self.names.write() = found.names.into();
        *self.asked.lock() = Some(now);
        self.overdue.store(false, Ordering::Relaxed);
        if self.void.load(Ordering::Acquire) {
            // There was more DDL while the answer was on its way.
            self.forget();
        }
    }

    fn forget(&self) {
        self.set_suspects(None);
        self.clear.store(false, Ordering::Relaxed);
        self.transparent.store(false, Ordering::Relaxed);
        *self.asked.lock() = None;
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
    /// Of the defaults of sessions, if it was told.
    defaults: Option<String>,
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
        defaults: None,
    };

    fn of(rows: &Rows) -> Self {
        let Some([reached, opaque, Some(names), reads, Some(suspects), read]) =
            rows.first().map(Vec::as_slice)
        else {
            return Self::ANYTHING;
        };
        let defaults = rows.get(1).and_then(|row| row.first().cloned().flatten());
        let names: Vec<Box<str>> =
            names.split(',').filter(|name| !name.is_empty()).map(Into::into).collect();
        if names.len() > NAMES_MAX {
            return Self { defaults, ..Self::ANYTHING };
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
            defaults,
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

    /// True if reading runs some of that. What DDL has changed is known when the catalogue is asked again.
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

    /// How often clients of this pool ran DDL.
    #[must_use]
    pub fn ddl_seen(&self) -> u64 {
        self.profile.ddl_seen.load(Ordering::Relaxed)
    }

    /// A client ran DDL.
    pub fn note_ddl(&self) {
        self.profile.ddl_seen.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's DDL may have changed code: what is known of the database's code is void.
    pub fn note_code(&self) {
        self.profile.void.store(true, Ordering::Release);
        self.profile.forget();
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
        runtime.spawn(async move {
            let examined = match server.check_idle() {
                Ok(()) => pool.examine(&mut server).await,
                Err(reason) => Err(reason),
            };
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
        let question = [HIDDEN_CODE_QUERY, DIGEST].join(";");
        let asked = tokio::time::timeout(ASK_TIMEOUT, server.query(&question)).await;
        let found = match asked {
            Ok(Ok(rows)) => Found::of(&rows),
            Ok(Err(QueryError::Refused { .. })) => Found::ANYTHING,
            Ok(Err(QueryError::Io(_))) => return Err(CloseReason::ClosedByServer),
            Err(_) => return Err(CloseReason::NotClean),
        };
        if found.opaque {
            tracing::info!(
                database = %self.database,
                "the database has functions that may keep session state unseen: statements that may run them pin"
            );
        }
        if found.reads_sequences {
            self.sequences.note_code();
        }
        let defaults = found.defaults.clone();
        self.profile.note(found, now);
        if let Some(digest) = defaults {
            self.note_digest(&digest);
        }
        Ok(())
    }
}

impl Pools {
    /// Asks again, in the background and by an idle server or the next that is free, where that is due.
    pub(super) fn examine_again(self: &Arc<Self>) {
        let now = clock::now();
        let pools: Vec<Arc<Pool>> = self.by_name.read().values().map(Arc::clone).collect();
        for pool in pools {
            if !pool.profile.is_due(now) {
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
