//! Layer 1, pure. The codec of protocol 3: bytes in, values out, and back.
//!
//! Nothing here does I/O, keeps state between messages, or knows what a message leads to.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

pub mod backend;
pub mod encode;
pub mod frame;
pub mod frontend;
pub mod response;
pub mod sqlstate;
pub mod startup;
pub mod tag;

pub use frame::{FrameError, HEADER_LEN, Header};
pub use response::ErrorResponse;
pub use sqlstate::SqlState;
pub use tag::{BackendTag, FrontendTag};
