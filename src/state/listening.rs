//! What a client's messages mean for its channels, before they are sent.

use super::batch::is_copy;
use super::channels::{By, Verdict};
use super::session::{ServerSide, Session};
use super::statement::Effects;
use crate::wire::FrontendTag;
use crate::wire::frame::Frame;

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

    /// [`Session::listen_first`] for what the client's statement `name` does.
    pub(super) fn listen_before_bind(&mut self, name: &[u8], server: &mut ServerSide) -> Verdict {
        let effects = self.effects_of(name);
        if !self.channels.may_concern(effects) {
            server.may_listen |= effects.intersects(Effects::LISTEN);
            return Verdict::Send(effects);
        }
        let tail = if name.is_empty() {
            self.unnamed.as_ref().and_then(|unnamed| unnamed.tail.clone())
        } else {
            self.statements.get(name).map(|statement| statement.tail.clone())
        };
        let tail = tail.unwrap_or_default();
        let text = tail.split(|&byte| byte == 0).next().unwrap_or_default();
        self.listen_first(effects, text, By::Bind, server)
    }
}
