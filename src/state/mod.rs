//! Layer 2, pure. What a stream of messages means.

pub mod statement;
mod sql;
