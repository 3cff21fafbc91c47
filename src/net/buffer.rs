//! Byte buffers that belong to the thread, not to the connection.
//!
//! Thousands of connections are idle while a handful move bytes, so a buffer is borrowed for the time of a read and
//! the write that follows, and goes back to a short free list of its thread. The most recently used one is lent
//! first: it is still in the CPU's cache.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut, Range};

/// Size of a [`Chunk`], in bytes: what one receive can take at most.
pub const CHUNK_SIZE: usize = 64 * 1024;

/// Room beside a chunk's worth of plaintext: record headers and tags, and short ciphertext that waits to go along.
const SCRATCH_MARGIN: usize = 8 * 1024;

/// Size of a [`Scratch`], in bytes: the ciphertext of a whole chunk, and [`SCRATCH_MARGIN`].
pub(super) const SCRATCH_SIZE: usize = CHUNK_SIZE + SCRATCH_MARGIN;

/// Up to this length, in bytes, the rest of a scratch is copied rather than kept in it.
const ADOPT_MIN: usize = 4 * 1024;

/// Most free chunks a thread keeps. More are in use at once only while peers do not read.
const FREE_CHUNKS_MAX: usize = 8;

thread_local! {
    static FREE_CHUNKS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static FREE_SCRATCH: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// [`CHUNK_SIZE`] initialised bytes, of arbitrary content, lent by the current thread and returned on drop.
///
/// A chunk may be dropped on another thread than it was taken on: it then joins that thread's list.
pub struct Chunk {
    bytes: Box<[u8]>,
}

impl Chunk {
    /// Takes a chunk of the thread's free list, or a new one.
    #[must_use]
    pub fn take() -> Self {
        let free = FREE_CHUNKS.try_with(|chunks| chunks.borrow_mut().pop());
        let bytes = free.ok().flatten();
        Self { bytes: bytes.unwrap_or_else(|| vec![0; CHUNK_SIZE].into_boxed_slice()) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // An error means that the thread is ending, and its list has gone.
        let _ = FREE_CHUNKS.try_with(|chunks| {
            let mut chunks = chunks.borrow_mut();
            if chunks.len() < FREE_CHUNKS_MAX {
                chunks.push(bytes);
            }
        });
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// [`SCRATCH_SIZE`] bytes for the ciphertext of one call.
///
/// A thread needs one, so one is kept. What the socket did not take of it may stay in it, see [`Waiting::adopt`]:
/// memory of many lengths would be scattered over the allocator's size classes.
pub(super) struct Scratch {
    bytes: Vec<u8>,
}

impl Scratch {
    pub(super) fn take() -> Self {
        let free = FREE_SCRATCH.try_with(Cell::take).ok().flatten();
        Self { bytes: free.unwrap_or_else(|| vec![0; SCRATCH_SIZE]) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() < SCRATCH_SIZE {
            // It was adopted.
            return;
        }
        bytes.resize(SCRATCH_SIZE, 0);
        // An error means that the thread is ending.
        let _ = FREE_SCRATCH.try_with(|free| free.set(Some(bytes)));
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Bytes that wait in a stream. Holds no memory while empty.
#[derive(Default)]
pub(super) struct Waiting {
    bytes: Vec<u8>,
    taken: usize,
}

impl Waiting {
    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.taken)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes `len` bytes off the front and frees the memory with the last one.
    pub(super) fn advance(&mut self, len: usize) {
        self.taken = self.taken.saturating_add(len);
        if self.is_empty() {
            let bytes = std::mem::take(self).bytes;
            if bytes.capacity() == SCRATCH_SIZE {
                drop(Scratch { bytes });
            }
        }
    }

    /// Keeps `rest`, the bytes of `scratch` that are still to be sent, where they are. Nothing may wait yet.
    pub(super) fn adopt(&mut self, mut scratch: Scratch, rest: Range<usize>) {
        if rest.len() <= ADOPT_MIN || !self.is_empty() {
            return self.push(scratch.get(rest).unwrap_or_default());
        }
        let mut bytes = std::mem::take(&mut scratch.bytes);
        bytes.truncate(rest.end);
        *self = Self { bytes, taken: rest.start };
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.compact();
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends `len` zero bytes and returns them, to be written over.
    pub(super) fn extend(&mut self, len: usize) -> &mut [u8] {
        self.compact();
        let end = self.bytes.len();
        self.bytes.resize(end.saturating_add(len), 0);
        self.bytes.get_mut(end..).unwrap_or_default()
    }

    /// The waiting bytes, to be changed in place.
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.taken..).unwrap_or_default()
    }

    /// Without this a queue that never quite drains would grow for ever.
    fn compact(&mut self) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken.min(self.bytes.len()));
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_chunks() -> usize {
        FREE_CHUNKS.with(|chunks| chunks.borrow().len())
    }

    #[test]
    fn a_chunk_is_lent_again_after_it_was_dropped() {
        let mut chunk = Chunk::take();
        assert_eq!(chunk.len(), CHUNK_SIZE);
        chunk[7] = 42;
        drop(chunk);
        assert_eq!(free_chunks(), 1);
        assert_eq!(Chunk::take()[7], 42);
    }

    #[test]
    fn a_thread_keeps_a_bounded_number_of_free_chunks() {
        let many: Vec<Chunk> = (0..FREE_CHUNKS_MAX + 5).map(|_| Chunk::take()).collect();
        assert_eq!(free_chunks(), 0);
        drop(many);
        assert_eq!(free_chunks(), FREE_CHUNKS_MAX);
    }

    #[test]
    fn two_scratches_at_once_are_two_buffers() {
        let mut first = Scratch::take();
        let second = Scratch::take();
        assert_ne!(first.as_ptr(), second.as_ptr());
        first[0] = 9;
        drop(second);
        drop(first);
        assert_eq!(Scratch::take()[0], 9);
    }

    #[test]
    fn what_is_left_of_a_scratch_stays_in_it_until_it_is_sent() {
        let mut scratch = Scratch::take();
        let first = scratch.as_ptr();
        scratch[10_000] = 5;
        let mut waiting = Waiting::default();
        waiting.adopt(scratch, 10_000..30_000);
        assert_ne!(Scratch::take().as_ptr(), first);
        assert_eq!(waiting.len(), 20_000);
        assert_eq!(waiting.as_slice()[0], 5);
        assert_eq!(waiting.capacity(), SCRATCH_SIZE);
        waiting.push(b"behind");
        waiting.advance(20_000);
        assert_eq!(waiting.as_slice(), b"behind");
        waiting.advance(6);
        assert_eq!(waiting.capacity(), 0);
        let again = Scratch::take();
        assert_eq!(again.as_ptr(), first);
        assert_eq!(again.len(), SCRATCH_SIZE);
    }

    #[test]
    fn waiting_bytes_come_out_in_order_and_leave_no_memory() {
        let mut waiting = Waiting::default();
        waiting.push(b"abc");
        waiting.advance(1);
        waiting.push(b"def");
        waiting.extend(1).copy_from_slice(b"g");
        assert_eq!(waiting.as_slice(), b"bcdefg");
        waiting.advance(6);
        assert!(waiting.is_empty());
        assert_eq!(waiting.capacity(), 0);
    }
}
