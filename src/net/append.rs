//! What the login phases and pgweir's own questions need of a stream.

use super::buffer::Chunk;
use super::stream::Stream;
use std::io;

impl Stream {
    /// Reads what is there behind the end of `buffer`; 0 is the end of the stream.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// As for [`Stream::poll_read`].
    pub async fn read_append(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let read = std::future::poll_fn(|cx| {
            // Taken anew for each try, so that nobody holds one while waiting.
            let mut chunk = Chunk::take();
            self.poll_read(cx, &mut chunk).map_ok(|read| {
                buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
                read
            })
        });
        read.await
    }
}
