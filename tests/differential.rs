//! What a client observes through pgweir is what it observes on a connection of its own: the same
//! conversation is played to both, with other clients interleaved and few servers, and every answer
//! is compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

mod support;

#[path = "differential/cases.rs"]
mod cases;
#[path = "differential/generator.rs"]
mod generator;
#[path = "differential/holding.rs"]
mod holding;
#[path = "differential/left_out.rs"]
mod left_out;
#[path = "differential/player.rs"]
mod player;
#[path = "differential/random.rs"]
mod random;
#[path = "differential/script.rs"]
mod script;
#[path = "differential/sessions.rs"]
mod sessions;
#[path = "differential/shrink.rs"]
mod shrink;
#[path = "differential/transcript.rs"]
mod transcript;
#[path = "differential/vocabulary.rs"]
mod vocabulary;
#[path = "differential/world.rs"]
mod world;
