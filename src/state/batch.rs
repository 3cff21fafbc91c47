//! Where a client's batches begin and end, and which of its messages are passed on in pieces.

use super::session::{ClientFault, Extent, Limits, STATEMENT_MAX, Session, Streaming};
use crate::wire::{FrameError, FrontendTag, Header};

impl Session {
    /// How much of `input` should be sent together. Whole batches are, so that a client which
    /// vanishes leaves no half of one on a server; `piece_max` bounds what is gathered for it.
    ///
    /// # Errors
    /// [`ClientFault`] for what can be no client's message.
    pub fn extent(
        &self,
        input: &[u8],
        piece_max: usize,
        limits: &Limits,
    ) -> Result<Extent, ClientFault> {
        if self.is_streaming() {
            return Ok(if input.is_empty() {
                Extent::Incomplete
            } else {
                Extent::Piece(input.len())
            });
        }
        let mut rest = input;
        let mut batch = 0;
        while let Some(header) = read_header(rest, limits)? {
            let tag = FrontendTag(header.tag);
            if header.frame_len > rest.len() {
                let at = input.len() - rest.len();
                if streams(tag, header.frame_len, rest) {
                    return Ok(Extent::Piece(input.len()));
                }
                return Ok(match (batch, at) {
                    (0, at) if at >= piece_max => Extent::Piece(at),
                    (0, _) => Extent::Incomplete,
                    (batch, _) => Extent::Batch(batch),
                });
            }
            if tag == FrontendTag::TERMINATE && rest.len() == input.len() {
                return Ok(Extent::Terminate);
            }
            rest = rest.get(header.frame_len..).unwrap_or_default();
            if ends_batch(tag) {
                batch = input.len() - rest.len();
            }
        }
        let whole = input.len() - rest.len();
        Ok(match batch {
            0 if whole >= piece_max => Extent::Piece(whole),
            0 => Extent::Incomplete,
            batch => Extent::Batch(batch),
        })
    }

    /// True if a batch that is whole, or asks for its answers, is at the front of `input`.
    #[must_use]
    pub fn has_batch(&self, input: &[u8], limits: &Limits) -> bool {
        let mut rest = input;
        while let Ok(Some(header)) = read_header(rest, limits) {
            let Some(behind) = rest.get(header.frame_len..) else { return false };
            let tag = FrontendTag(header.tag);
            if ends_batch(tag) && !is_copy(tag) {
                return tag != FrontendTag::TERMINATE;
            }
            rest = behind;
        }
        false
    }

    /// Drops what is nothing to PostgreSQL where no batch is under way, and would get the client a server all the
    /// same: copy messages that it sends late, after its copy failed, and a `Flush`.
    ///
    /// Returns the bytes done with.
    pub fn discard_idle(&mut self, input: &[u8], limits: &Limits) -> Result<usize, ClientFault> {
        let mut rest = input;
        // What was begun on a server that is gone goes the same way.
        if let Streaming::Discard(left) | Streaming::Forward(left) = self.streaming {
            let take = left.min(rest.len());
            rest = rest.get(take..).unwrap_or_default();
            self.streaming =
                if take < left { Streaming::Discard(left - take) } else { Streaming::No };
        }
        while let Some(header) = read_header(rest, limits)? {
            let is_flush = header.tag == FrontendTag::FLUSH.0 && header.body_len() == 0;
            if !is_flush && !is_copy(FrontendTag(header.tag)) {
                break;
            }
            let take = header.frame_len.min(rest.len());
            rest = rest.get(take..).unwrap_or_default();
            if take < header.frame_len {
                self.streaming = Streaming::Discard(header.frame_len - take);
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Drops the messages of a batch that was refused, up to and with the one that ends it.
    ///
    /// Returns the bytes done with, and whether the end was among them: then a `ReadyForQuery`
    /// is owed.
    ///
    /// # Errors
    /// [`ClientFault`] for what can be no client's message.
    pub fn skip_batch(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<(usize, bool), ClientFault> {
        let mut rest = input;
        self.channels.give_up();
        loop {
            if let Streaming::Discard(left) | Streaming::Forward(left) = self.streaming {
                let take = left.min(rest.len());
                rest = rest.get(take..).unwrap_or_default();
                self.streaming =
                    if take < left { Streaming::Discard(left - take) } else { Streaming::No };
                if rest.is_empty() {
                    return Ok((input.len(), false));
                }
            }
            let Some(header) = read_header(rest, limits)? else {
                return Ok((input.len() - rest.len(), false));
            };
            let tag = FrontendTag(header.tag);
            let take = header.frame_len.min(rest.len());
            let ends =
                matches!(tag, FrontendTag::SYNC | FrontendTag::QUERY | FrontendTag::FUNCTION_CALL);
            if take < header.frame_len {
                if ends {
                    // Its end must be seen to answer in its place.
                    if !streams(tag, header.frame_len, rest) {
                        return Ok((input.len() - rest.len(), false));
                    }
                    self.streaming = Streaming::Discard(header.frame_len - take);
                    return Ok((input.len(), true));
                }
                self.streaming = Streaming::Discard(header.frame_len - take);
                return Ok((input.len(), false));
            }
            if tag == FrontendTag::TERMINATE {
                return Ok((input.len() - rest.len(), true));
            }
            rest = rest.get(take..).unwrap_or_default();
            if ends {
                return Ok((input.len() - rest.len(), true));
            }
        }
    }
}

/// True if a message of this size is passed on in pieces instead of being waited for.
pub(super) fn streams(tag: FrontendTag, frame_len: usize, have: &[u8]) -> bool {
    /// A message up to this size is waited for, whatever it is.
    const WAIT_MAX: usize = 32 * 1024;
    match tag {
        FrontendTag::COPY_DATA => true,
        FrontendTag::QUERY | FrontendTag::PARSE => frame_len > STATEMENT_MAX,
        // The names must be at hand.
        FrontendTag::BIND => frame_len > WAIT_MAX && have.len() >= WAIT_MAX / 2,
        FrontendTag::FUNCTION_CALL => frame_len > WAIT_MAX,
        _ => false,
    }
}

/// The server answers, or the copy goes on: what came so far can be sent.
pub(super) fn ends_batch(tag: FrontendTag) -> bool {
    matches!(
        tag,
        FrontendTag::SYNC
            | FrontendTag::QUERY
            | FrontendTag::FLUSH
            | FrontendTag::FUNCTION_CALL
            | FrontendTag::TERMINATE
    ) || is_copy(tag)
}

pub(super) fn is_copy(tag: FrontendTag) -> bool {
    matches!(tag, FrontendTag::COPY_DATA | FrontendTag::COPY_DONE | FrontendTag::COPY_FAIL)
}

/// Reads a client's header: its type must be one that belongs here, its size one it may have.
pub(super) fn read_header(input: &[u8], limits: &Limits) -> Result<Option<Header>, ClientFault> {
    let Some(header) = Header::read(input, limits.message_max)? else {
        return Ok(None);
    };
    let tag = FrontendTag(header.tag);
    check_frontend_tag(tag)?;
    if waits(tag) && header.frame_len > NAMES_MAX {
        return Err(FrameError::TooLarge { tag: header.tag, frame_len: header.frame_len }.into());
    }
    Ok(Some(header))
}

/// Largest message that holds nothing but names.
pub(super) const NAMES_MAX: usize = 32 * 1024;

/// True for messages that are never streamed, however large.
pub(super) fn waits(tag: FrontendTag) -> bool {
    !matches!(
        tag,
        FrontendTag::COPY_DATA
            | FrontendTag::QUERY
            | FrontendTag::PARSE
            | FrontendTag::BIND
            | FrontendTag::FUNCTION_CALL
    )
}

pub(super) fn check_frontend_tag(tag: FrontendTag) -> Result<(), ClientFault> {
    match tag {
        FrontendTag::PARSE
        | FrontendTag::BIND
        | FrontendTag::DESCRIBE
        | FrontendTag::EXECUTE
        | FrontendTag::CLOSE => Ok(()),
        tag if ends_batch(tag) => Ok(()),
        FrontendTag(tag) => Err(ClientFault::Unexpected { tag }),
    }
}
