//! Bytes that could not be written yet, and the buffers in which messages are put together.

use crate::net::buffer::Chunk;
use crate::net::stream::Stream;
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

/// A buffer grown beyond this is not kept for the next message.
const KEEP_MAX: usize = 128 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer, if possible one that was used before on this thread.
pub(super) fn take_buffer() -> Vec<u8> {
    SPARE.take()
}

/// Gives a buffer back.
pub(super) fn give_buffer(mut buffer: Vec<u8>) {
    if buffer.capacity() <= KEEP_MAX {
        buffer.clear();
        SPARE.set(buffer);
    }
}

/// What is still to be written to a stream. Empty, it holds no buffer.
#[derive(Default)]
pub(super) enum Backlog {
    #[default]
    Empty,
    Chunk(Chunk, Range<usize>),
    Bytes(Vec<u8>, usize),
    /// All was taken by the stream, which has not sent it all.
    Flushing,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Puts `bytes` behind what is there.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        let all = match std::mem::take(self) {
            Self::Empty | Self::Flushing => {
                *self = Self::Bytes(bytes, 0);
                return;
            }
            chunk @ Self::Chunk(..) => [chunk.bytes(), &bytes].concat(),
            Self::Bytes(mut before, at) => {
                before.drain(..at);
                before.extend_from_slice(&bytes);
                before
            }
        };
        give_buffer(bytes);
        *self = Self::Bytes(all, 0);
    }

    /// Puts `bytes` before the `end` of what is there, or behind it if it does not end so.
    pub(super) fn insert_before(&mut self, bytes: Vec<u8>, end: &[u8]) {
        if !self.bytes().ends_with(end) {
            return self.push(bytes);
        }
        let kept = self.bytes().len() - end.len();
        let all = [self.bytes().get(..kept).unwrap_or_default(), &bytes, end].concat();
        self.clear();
        *self = Self::Bytes(all, 0);
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Empty | Self::Flushing => &[],
            Self::Chunk(chunk, range) => chunk.get(range.clone()).unwrap_or_default(),
            Self::Bytes(bytes, at) => bytes.get(*at..).unwrap_or_default(),
        }
    }

    fn advance(&mut self, written: usize) {
        match self {
            Self::Empty | Self::Flushing => {}
            Self::Chunk(_, range) => range.start += written,
            Self::Bytes(_, at) => *at += written,
        }
    }

    fn clear(&mut self) {
        if let Self::Bytes(bytes, _) = std::mem::take(self) {
            give_buffer(bytes);
        }
    }

    /// Writes until nothing is left.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        loop {
            let bytes = self.bytes();
            if bytes.is_empty() {
                self.clear();
                return match stream.poll_flush(cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(Ok(total)),
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => {
                        *self = Self::Flushing;
                        Poll::Pending
                    }
                };
            }
            match stream.poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    total += written;
                    self.advance(written);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
