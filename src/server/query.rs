//! A question of pgweir's own to a server, outside of the data path.

use super::Server;
use super::connect::Refusal;
use crate::state::session::ServerUnnamed;
use crate::wire::response::ErrorFields;
use crate::wire::{BackendTag, backend, encode};
use std::io;

/// Rows as text, NULL as `None`.
pub type Rows = Vec<Vec<Option<String>>>;

/// Most rows that are kept of an answer.
const ROWS_MAX: usize = 10_000;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The connection failed.
    #[error("connection to the server failed")]
    Io(#[from] io::Error),
    /// The server refused the question.
    #[error("server refused the query with SQLSTATE {}", .0.code())]
    Refused(Refusal),
}

impl Server {
    /// Runs `sql` by a simple `Query` and collects its rows. The server must owe nothing.
    ///
    /// # Errors
    /// [`QueryError`]; after [`QueryError::Io`] the server is closed.
    ///
    /// # Cancel safety
    /// None: the server of a dropped call is out of step and must be closed.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, QueryError> {
        let mut bytes = Vec::with_capacity(sql.len() + 6);
        encode::query(&mut bytes, sql);
        // A Query takes the place of the unnamed statement, whoever has prepared it.
        self.side.unnamed = ServerUnnamed::Unknown;
        self.stream.write_all(&bytes).await?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let (tag, body) = Self::read_message(&mut self.stream, &mut self.held).await?;
            match tag {
                BackendTag::DATA_ROW if rows.len() < ROWS_MAX => {
                    let columns = backend::data_row(&body)
                        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                    let text = |column: Option<&[u8]>| {
                        column.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                    };
                    rows.push(columns.into_iter().map(text).collect());
                }
                BackendTag::ERROR_RESPONSE => {
                    let fields = ErrorFields::read(&body);
                    if fields.fatal {
                        return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
                    }
                    let sqlstate = fields.sqlstate;
                    refused = Some(QueryError::Refused(Refusal { sqlstate, body: body.into() }));
                }
                BackendTag::READY_FOR_QUERY => {
                    if body != b"I" {
                        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
                    }
                    return refused.map_or(Ok(rows), Err);
                }
                _ => {}
            }
        }
    }
}
