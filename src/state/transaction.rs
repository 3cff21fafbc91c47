//! What `ReadyForQuery` says about the transaction block.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY>

/// State of the transaction block on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no block is open.
    Idle,
    /// `T`: a block is open.
    InTransaction,
    /// `E`: the block failed; PostgreSQL refuses everything but its end.
    Failed,
}

impl TransactionStatus {
    /// Reads the byte in a `ReadyForQuery`.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}
