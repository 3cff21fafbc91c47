//! What `deploy/` needs of pgweir, and that its files are what their readers expect.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::doc_markdown,
    reason = "helpers of tests, shared ones among them, and product names are words here"
)]

#[path = "deploy/files.rs"]
mod files;
#[path = "support/moto.rs"]
mod moto;
#[path = "deploy/service.rs"]
mod service;
mod support;
#[path = "deploy/templates.rs"]
mod templates;
