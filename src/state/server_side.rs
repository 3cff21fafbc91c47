//! What is known of a server's session.

use super::pipeline::Pipeline;
use super::prepared::{ServerStatements, Token};
pub use super::sequences::Sequences;
use super::settings::Settings;
use super::sql_statements::OwnNames;
use std::sync::Arc;

/// Which unnamed statement a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerUnnamed {
    /// None.
    Nothing,
    /// That of the client who made this token.
    Is(Token),
    /// An error came in between.
    Unknown,
}

/// What is known of a server's session.
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub struct ServerSide {
    /// The replies it owes.
    pub pipeline: Pipeline,
    /// The statements it has.
    pub statements: ServerStatements,
    /// Names that mean to one client what they mean here.
    pub own: Option<Box<OwnNames>>,
    /// Its unnamed statement.
    pub unnamed: ServerUnnamed,
    /// The settings it was told.
    pub applied: Arc<Settings>,
    /// It may have custom settings beside those: they are taken back before the next client comes.
    pub wipe: bool,
    /// Whose sequence values it may know.
    pub sequences: Sequences,
    /// Its settings are perhaps no longer those that a query at its opening had made.
    pub altered: bool,
    /// It has, perhaps, what nothing takes back: nobody else gets it.
    pub stained: bool,
    /// It was told to LISTEN, and must be told to stop before another client has it.
    pub may_listen: bool,
    /// [`super::session::Limits::ddl_seen`] as of its last transaction's begin.
    pub ddl_seen: u64,
    /// How often it was told something ahead that may fail.
    pub guards: u64,
    /// Statements parsed again since somebody last counted them.
    pub reparsed: u32,
}

impl Default for ServerSide {
    fn default() -> Self {
        Self {
            pipeline: Pipeline::default(),
            statements: ServerStatements::default(),
            own: None,
            unnamed: ServerUnnamed::Nothing,
            applied: Arc::default(),
            wipe: false,
            sequences: Sequences::default(),
            altered: false,
            stained: false,
            may_listen: false,
            ddl_seen: 0,
            guards: 0,
            reparsed: 0,
        }
    }
}
