//! Where statements come from that any number of clients prepared with the same text.

use super::fault::ClientFault;
use super::prepared::{Prepared, Tail};
use super::settings::Settings;
use super::statement::{Effects, Options};
use std::sync::Arc;

/// Where statements with the same text become one; behind a lock in the proxy.
pub trait Intern {
    /// The statement whose `Parse` message has `tail`, as parsed under `settings`.
    ///
    /// # Errors
    /// [`ClientFault::StatementsFull`].
    fn intern(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
        settings: &Settings,
    ) -> Result<Arc<Prepared>, ClientFault>;

    /// A statement that nobody shares, as it was parsed under settings of the moment.
    ///
    /// # Errors
    /// [`ClientFault::StatementsFull`].
    fn apart(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
    ) -> Result<Arc<Prepared>, ClientFault>;

    /// A copy of the `tail` of a statement without a name.
    ///
    /// # Errors
    /// [`ClientFault::StatementsFull`].
    fn hold(&mut self, tail: &[u8]) -> Result<Tail, ClientFault>;
}
