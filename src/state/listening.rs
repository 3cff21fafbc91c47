//! What a client's messages mean for its channels, before they are sent.

use super::batch::is_copy;
use super::channels::{By, ENDING, Verdict};
use super::memo;
use super::session::{Limits, ServerSide, Session};
use super::statement::Effects;
use crate::wire::FrontendTag;
use crate::wire::frame::{self, Frame};
use crate::wire::frontend::{Parse, query_text};

impl Session {
    /// While a transaction is about channels, each batch is answered before the next is sent.
    pub(super) fn must_wait(&self, frame: Frame<'_>, server: &ServerSide) -> bool {
        self.channels.is_followed()
            && server.pipeline.owes_a_batch()
            && !is_copy(FrontendTag(frame.tag))
            && !server.pipeline.waits_for_client()
    }

    /// Sees to it that pgweir listens on a channel before the client's own server is told to.
    pub(super) fn listen_first(
        &mut self,
        effects: Effects,
        text: &[u8],
        by: By,
        server: &mut ServerSide,
    ) -> Verdict {
        if !self.channels.may_concern(effects) {
            server.may_listen |= by != By::Parse && effects.intersects(Effects::LISTEN);
            return Verdict::Send(effects);
        }
        let busy = server.pipeline.owes_a_batch();
        let verdict = self.channels.before(effects, text, self.options, by, busy);
        if verdict != Verdict::Wait && by != By::Parse {
            server.may_listen |= effects.intersects(Effects::LISTEN);
        }
        verdict
    }

    /// True if the connection that listens has to do something before the first message of `input`, as far as that can
    /// be seen at a glance, and `is_up`. There is no server yet.
    ///
    /// Costs next to nothing where the client does not listen and the text does not begin as LISTEN does.
    #[must_use]
    pub fn asks_first(
        &mut self,
        input: &[u8],
        limits: &Limits,
        is_up: impl FnOnce() -> bool,
    ) -> bool {
        if self.channels.is_asking() {
            return true;
        }
        let Some(text) = first_text(input, limits) else { return false };
        let first = text.trim_ascii_start().first();
        let may_listen = || first.is_some_and(|byte| byte.eq_ignore_ascii_case(&b'L'));
        if !self.channels.is_in_use() && !may_listen() {
            return false;
        }
        let effects = memo::effects(text, self.options);
        if !effects.intersects(ENDING.and(Effects::LISTEN)) || !is_up() {
            return false;
        }
        // Nothing is sent, as nothing is run by a Parse.
        self.channels.before(effects, text, self.options, By::Parse, false);
        self.channels.take_wait();
        self.channels.is_asking()
    }

    /// [`Session::listen_first`] for what the client's statement `name` does.
    pub(super) fn listen_before_bind(&mut self, name: &[u8], server: &mut ServerSide) -> Verdict {
        let effects = self.effects_of(name);
        if !self.channels.may_concern(effects) {
            server.may_listen |= effects.intersects(Effects::LISTEN);
            return Verdict::Send(effects);
        }
        let tail = if name.is_empty() {
            self.unnamed.as_ref().and_then(|unnamed| unnamed.tail.as_deref().map(Into::into))
        } else {
            self.statements.get(name).map(|statement| (**statement.tail).into())
        };
        let tail: Box<[u8]> = tail.unwrap_or_default();
        let text = tail.split(|&byte| byte == 0).next().unwrap_or_default();
        self.listen_first(effects, text, By::Bind, server)
    }
}

/// The text that the first message of `input` has whole, if it has one.
fn first_text<'a>(mut input: &'a [u8], limits: &Limits) -> Option<&'a [u8]> {
    let frame = frame::take(&mut input, limits.message_max).ok()??;
    match FrontendTag(frame.tag) {
        FrontendTag::QUERY => query_text(frame.body()),
        FrontendTag::PARSE => Parse::read(frame.body()).map(|parse| parse.query),
        _ => None,
    }
}
