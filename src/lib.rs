//! pgweir: a PostgreSQL proxy for serverless fleets.
//!
//! Modules are layers, and an arrow may only point down (`tests/architecture.rs` keeps it so).

pub mod admin;
pub mod app;
pub mod auth;
pub mod client;
pub mod config;
pub mod credentials;
pub mod listener;
pub mod net;
pub mod pool;
pub mod server;
pub mod state;
pub mod target;
pub mod telemetry;
pub mod wire;
