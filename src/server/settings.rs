//! Telling a server a client's settings outside of the data path, to learn what they come to.

use super::connect::Refusal;
use super::{Reported, Server, reported};
use crate::state::pipeline::Pipeline;
use crate::state::prelude;
use crate::state::session::{Limits, SequenceCare};
use crate::state::settings::Settings;
use crate::wire::response::ErrorFields;
use crate::wire::{BackendTag, encode};
use std::io;
use std::sync::Arc;

/// Why a server does not have the settings it was told.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The connection failed.
    #[error("connection to the server failed")]
    Io(#[from] io::Error),
    /// The server refused one of them.
    #[error("server refused a setting")]
    Refused(Refusal),
}

/// Only the settings are of interest here.
const KEEP_ALL: Limits = Limits {
    message_max: usize::MAX,
    statements_max: usize::MAX,
    server_statements_max: usize::MAX,
    hidden_code: false,
    code_in_reads: false,
    opaque_code: false,
    ddl_seen: 0,
    sequences: SequenceCare::None,
};

impl Server {
    /// Takes the server from a fresh state to `wanted`, and yields every setting it reports of it.
    ///
    /// # Errors
    /// [`ApplyError`]; the server is then closed.
    ///
    /// # Cancel safety
    /// None: the server of a dropped call must be closed.
    pub async fn reapply(&mut self, wanted: &Arc<Settings>) -> Result<Reported, ApplyError> {
        // From nothing, so that each setting is reported that differs from the default.
        let mut out = Vec::new();
        let had = std::mem::take(&mut self.side.applied);
        if !had.is_empty() {
            encode::query(&mut out, &had.reset_text());
        }
        prelude::write(&mut self.side, wanted, &KEEP_ALL, &mut out);
        if !self.side.pipeline.is_settled() {
            prelude::end(&mut self.side, &mut out);
        }
        self.stream.write_all(&out).await?;
        let batches = usize::from(!had.is_empty()) + 2 * usize::from(!wanted.is_empty());
        let mut settings = Reported::new();
        let mut ready = 0;
        while ready < batches {
            let (tag, body) = Self::read_message(&mut self.stream, &mut self.held).await?;
            match tag {
                BackendTag::READY_FOR_QUERY => ready += 1,
                BackendTag::PARAMETER_STATUS => {
                    settings.push(
                        reported(&body)
                            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?,
                    );
                }
                BackendTag::ERROR_RESPONSE => {
                    let ErrorFields { sqlstate, fatal, .. } = ErrorFields::read(&body);
                    if fatal {
                        return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
                    }
                    return Err(ApplyError::Refused(Refusal { sqlstate, body: body.into() }));
                }
                _ => {}
            }
        }
        self.side.pipeline = Pipeline::default();
        Ok(settings)
    }
}
