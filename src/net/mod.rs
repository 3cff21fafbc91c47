//! Layer 3. Sockets, TLS and buffers.
//!
//! A connection is a [`Stream`], plain or TLS, read and written by polling. While nobody sends it holds no buffer:
//! bytes pass through a [`Chunk`] that is borrowed from the thread for the time of one read and its write, and TLS
//! works in a scratch buffer of the thread. What a stream keeps between two calls is an incomplete TLS record, or
//! bytes the peer's socket had no room for, and that memory is freed as soon as it is empty.
//!
//! Timeouts, and what the bytes mean, are left to the callers.

mod append;
pub mod buffer;
pub mod descriptors;
pub mod socket;
pub mod stream;
pub mod tls_acceptor;
pub mod tls_connector;
pub mod tls_error;
mod tls_handshake;
mod tls_provider;
mod tls_session;
pub mod tls_stream;
mod tls_verifier;
pub mod trouble;

#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tls_end_tests;
#[cfg(test)]
mod tls_tests;

pub use buffer::{CHUNK_SIZE, Chunk};
pub use descriptors::Descriptors;
pub use socket::{ConnectError, SocketOptions};
pub use stream::{DetachedStream, Stream};
pub use tls_acceptor::{AcceptorState, EndPointHash, TlsAcceptor};
pub use tls_connector::TargetConnector;
pub use tls_error::{TlsError, TlsFileError};
pub use tls_stream::TlsStream;
pub use trouble::Trouble;

/// The protocol name that PostgreSQL registered for ALPN.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";
