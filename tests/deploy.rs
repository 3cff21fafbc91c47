//! What `deploy/` needs of pgweir, and that its files are what their readers expect.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

#[path = "deploy/service.rs"]
mod service;
mod support;
