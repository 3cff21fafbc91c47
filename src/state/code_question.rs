//! Asks a client's own server what code there is in its database. Where every server is kept by its client, nobody
//! else could.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT>

use super::pipeline::{Expected, Fate, Undo};
use super::server_side::{ServerSide, ServerUnnamed};
use super::session::Session;
use crate::wire::{backend, encode};

/// A question about the code in a database.
#[derive(Clone, Copy, Debug)]
pub struct CodeQuestion {
    /// pgweir's own SQL.
    pub text: &'static str,
    /// How often the code was seen to change before.
    pub as_of: u64,
}

/// What a server has said of the code in its database.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ToldOfCode {
    /// The columns of the one row; `None` if the question was refused, or the answer not understood.
    pub row: Option<Vec<Option<String>>>,
    /// That of the question.
    pub as_of: u64,
}

impl ToldOfCode {
    /// Takes in the body of a `DataRow`.
    pub(super) fn row(&mut self, body: &[u8]) {
        let text = |column: Option<&[u8]>| match column {
            None => Some(None),
            Some(column) => std::str::from_utf8(column).ok().map(|text| Some(text.to_owned())),
        };
        let columns = backend::data_row(body);
        self.row = columns.and_then(|columns| columns.into_iter().map(text).collect());
    }
}

impl Session {
    /// True if what the client has left depends on what the code in the database may do.
    #[must_use]
    pub fn has_run_code(&self) -> bool {
        self.audit.doubts.as_ref().is_some_and(|doubts| doubts.ran_code)
    }

    /// Asks `server`, which owes nothing. [`Session::examine`] comes behind the answer.
    pub fn ask_for_code(
        &mut self,
        server: &mut ServerSide,
        question: CodeQuestion,
        out: &mut Vec<u8>,
    ) {
        encode::query(out, question.text);
        server.unnamed = ServerUnnamed::Nothing;
        server.pipeline.push(Expected::Query, Fate::Examination, Undo::Nothing);
        self.audit.code = Some(Box::new(ToldOfCode { row: None, as_of: question.as_of }));
    }

    /// The answer, once.
    pub fn take_told_of_code(&mut self) -> Option<Box<ToldOfCode>> {
        self.audit.code.take()
    }
}
