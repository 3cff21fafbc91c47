//! pgweir: a PostgreSQL proxy for serverless fleets.
//!
//! Modules are layers, and an arrow may only point down (`tests/architecture.rs` keeps it so).

pub mod config;
pub mod telemetry;
pub mod wire;
pub mod state;
pub mod auth;
pub mod net;
pub mod credentials;
pub mod admin;
pub mod pool;
