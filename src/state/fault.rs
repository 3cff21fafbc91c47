//! What ends a client's session from its own side.

use crate::wire::FrameError;

/// Why a client's stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    /// A frame is broken.
    #[error("malformed message")]
    Frame(#[from] FrameError),
    /// A message that does not belong here.
    #[error("message of type {tag:#04x} is not expected here")]
    Unexpected {
        /// Its type.
        tag: u8,
    },
    /// Values of sequences are asked for that cannot be told from those of other clients.
    #[error("sequence values of this session cannot be told")]
    Sequences,
    /// More statements than are allowed.
    #[error("too many prepared statements")]
    TooManyStatements,
    /// More bytes of statements than a client may have.
    #[error("too large prepared statements")]
    TooLargeStatements,
    /// The statements of all clients leave no room for another.
    #[error("prepared statements of all clients take too much memory")]
    StatementsFull,
    /// More statements about channels, or of a block that is about them, than can be followed in one text.
    #[error("too many statements about channels in one query")]
    TooManyChannels,
    /// More statements than are allowed to be prepared ahead of a text that names them.
    #[error("too many or too large statements are named at once")]
    TooMuchAhead,
}
