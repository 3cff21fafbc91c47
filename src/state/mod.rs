//! Layer 2, pure. What a stream of messages means: the ledger of replies, a client's virtual
//! session, prepared statements, settings, and the reasons for which a client keeps its server.

mod aside;
mod audit;
mod batch;
mod cause;
mod channel_steps;
pub mod channels;
pub mod code_question;
pub mod defaults;
pub mod due;
pub mod examination;
pub mod fault;
mod function_call;
pub mod intern;
mod listening;
mod memo;
mod mentioned;
#[cfg(test)]
mod model_tests;
mod naming;
pub mod pin;
pub mod pipeline;
pub mod prelude;
pub mod prepared;
mod preparing;
mod reading;
pub mod reply;
mod reset_batch;
pub mod reset_query;
mod restore;
mod retold;
mod seeds;
mod sequences;
pub mod server_side;
pub mod session;
pub mod settings;
pub mod shape;
pub mod sql;
pub mod sql_statements;
pub mod statement;
mod streaming;
pub mod suspects;
#[cfg(test)]
mod test_support;
pub mod transaction;
mod undo;

pub use pin::PinReason;
pub use transaction::TransactionStatus;
