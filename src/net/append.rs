//! What the login phases, pgweir's own questions and clients that change threads need of a stream.

use super::buffer::Chunk;
use super::stream::Stream;
use std::io;
use std::os::fd::AsFd;
use tokio::net::TcpStream;

impl Stream {
    /// Leaves the reactor it belongs to for that of the runtime this is called in.
    ///
    /// # Errors
    /// File descriptors or memory are exhausted; the stream then stays where it was.
    pub fn join_runtime(&mut self) -> io::Result<()> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.socket,
        };
        // The old registration goes with the old descriptor, when it is dropped here.
        let same: std::net::TcpStream = socket.as_fd().try_clone_to_owned()?.into();
        *socket = TcpStream::from_std(same)?;
        Ok(())
    }

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
