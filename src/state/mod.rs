//! Layer 2, pure. What a stream of messages means.

mod sql;
pub mod statement;
