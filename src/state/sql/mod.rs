//! How PostgreSQL reads SQL text, as far as session state depends on it.
//!
//! `lexer` cuts a text into tokens as PostgreSQL's `scan.l` does, `classify` walks over them once and
//! notes what each statement may leave behind, `digest` writes a statement without its literals.
//! Nothing here builds a syntax tree: a text that PostgreSQL refuses may come to anything, as it does nothing.

mod body;
pub(super) mod bytes;
mod calls;
pub(super) mod classify;
mod cursor;
pub(super) mod digest;
pub(super) mod functions;
pub(super) mod handed;
mod header;
mod lexer;
pub(super) mod name;
mod names;
pub(super) mod plain;
pub(super) mod words;
