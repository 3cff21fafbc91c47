//! One side of a TLS connection as a function of bytes: no socket, no waiting.
//!
//! This drives rustls's unbuffered interface, which owns the keys and the handshake but no byte buffer: a buffered
//! rustls connection keeps tens of kilobytes once it has carried data, and thousands of clients are idle.
//!
//! The interface is a loop: each call of `process_tls_records` yields one state that must be served before the next
//! call. It also says how many bytes at the front of the input are done with; the others (an incomplete record, or a
//! handshake message that ends in a later one) must stand in front of what comes next, unchanged.
//!
//! Source: <https://docs.rs/rustls/0.23/rustls/unbuffered/index.html>

use std::io;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use super::buffer::Waiting;

/// Where decrypted bytes go: the caller's buffer, and what it cannot take into memory of their own.
pub(super) struct Plaintext<'a> {
    pub(super) buf: &'a mut [u8],
    pub(super) filled: usize,
    pub(super) overflow: &'a mut Waiting,
}

impl Plaintext<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let free = self.buf.get_mut(self.filled..).unwrap_or_default();
        let fits = bytes.len().min(free.len());
        let (now, later) = bytes.split_at(fits);
        if let Some(place) = free.get_mut(..fits) {
            place.copy_from_slice(now);
            self.filled += fits;
        }
        self.overflow.push(later);
    }
}

/// How far [`Session::receive`] came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// All records that were complete are done.
    NeedsMore,
    /// The peer sent `close_notify`: nothing that follows counts.
    Closed,
}

/// What one state of rustls asks of the loop.
enum Step {
    Again,
    Done(Received),
    Failed(Error),
}

/// The keys and the handshake of one connection, on either side.
pub(super) enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Session {
    /// What both sides agreed on.
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }

    /// Processes `input` as far as it goes and says how many bytes at its front are done with.
    ///
    /// What must be sent because of it (handshake, alerts, tickets) is appended to `outgoing`; after an error, that is
    /// the alert that tells the peer. Not to be called again after an error.
    pub(super) fn receive(
        &mut self,
        input: &mut [u8],
        plaintext: &mut Plaintext<'_>,
        outgoing: &mut Waiting,
    ) -> (usize, Result<Received, Error>) {
        let mut done = 0_usize;
        loop {
            let rest = input.get_mut(done..).unwrap_or_default();
            let (discard, step) = match self {
                Self::Server(connection) => {
                    serve(connection.process_tls_records(rest), plaintext, outgoing)
                }
                Self::Client(connection) => {
                    serve(connection.process_tls_records(rest), plaintext, outgoing)
                }
            };
            done = done.saturating_add(discard);
            match step {
                Step::Again => {}
                Step::Done(received) => return (done, Ok(received)),
                Step::Failed(error) => {
                    self.take_alert(outgoing);
                    return (done, Err(error));
                }
            }
        }
    }

    /// Encrypts `plaintext` into `space`, behind all of `outgoing`, and returns how much of `space` is filled.
    ///
    /// `incoming` is what [`Self::receive`] left over. `space` must have room for everything.
    pub(super) fn encrypt(
        &mut self,
        incoming: &mut [u8],
        plaintext: &[u8],
        outgoing: &mut Waiting,
        space: &mut [u8],
    ) -> io::Result<usize> {
        self.write(incoming, outgoing, &mut |traffic, outgoing| {
            let ahead = outgoing.len();
            let no_room = || io::Error::other("no room for the ciphertext");
            let (front, free) = space.split_at_mut_checked(ahead).ok_or_else(no_room)?;
            let encrypted = traffic.encrypt(plaintext, free)?;
            front.copy_from_slice(outgoing.as_slice());
            outgoing.advance(ahead);
            Ok(ahead + encrypted)
        })
    }

    /// Appends `close_notify` to `outgoing`: the peer learns that it has all there is.
    pub(super) fn close(&mut self, incoming: &mut [u8], outgoing: &mut Waiting) -> io::Result<()> {
        self.write(incoming, outgoing, &mut |traffic, outgoing| {
            let mut alert = [0_u8; ALERTS_LEN_MAX];
            let len = traffic.close(&mut alert)?;
            outgoing.push(alert.get(..len).unwrap_or_default());
            Ok(len)
        })
        .map(drop)
    }

    fn write(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Waiting,
        action: &mut Action<'_>,
    ) -> io::Result<usize> {
        loop {
            let turn = match self {
                Self::Server(connection) => {
                    write_turn(connection.process_tls_records(incoming), outgoing, action)
                }
                Self::Client(connection) => {
                    write_turn(connection.process_tls_records(incoming), outgoing, action)
                }
            };
            if let Some(result) = turn {
                return result;
            }
        }
    }

    /// Moves the alert that rustls queued when it failed.
    fn take_alert(&mut self, outgoing: &mut Waiting) {
        // While something is to be sent rustls hands that out first, and so does not look at the input again.
        while self.common().wants_write() {
            let taken = match self {
                Self::Server(connection) => {
                    take_record(connection.process_tls_records(&mut []), outgoing)
                }
                Self::Client(connection) => {
                    take_record(connection.process_tls_records(&mut []), outgoing)
                }
            };
            if !taken {
                break;
            }
        }
    }
}

/// Room for `close_notify` and a key update that goes ahead of it.
const ALERTS_LEN_MAX: usize = 256;

/// What to do once rustls is ready to write; the same for both sides, whose types differ.
type Action<'a> = dyn FnMut(&mut dyn Traffic, &mut Waiting) -> io::Result<usize> + 'a;

trait Traffic {
    fn encrypt(&mut self, plaintext: &[u8], space: &mut [u8]) -> io::Result<usize>;
    fn close(&mut self, space: &mut [u8]) -> io::Result<usize>;
}

impl<Data> Traffic for WriteTraffic<'_, Data> {
    fn encrypt(&mut self, plaintext: &[u8], space: &mut [u8]) -> io::Result<usize> {
        WriteTraffic::encrypt(self, plaintext, space).map_err(io::Error::other)
    }

    fn close(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.queue_close_notify(space).map_err(io::Error::other)
    }
}

fn serve<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut Plaintext<'_>,
    outgoing: &mut Waiting,
) -> (usize, Step) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Step::Failed(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut step = Step::Again;
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard = discard.saturating_add(record.discard);
                        plaintext.put(record.payload);
                    }
                    Err(error) => {
                        step = Step::Failed(error);
                        break;
                    }
                }
            }
            step
        }
        Ok(ConnectionState::EncodeTlsData(record)) => {
            encode(record, outgoing).map_or_else(Step::Failed, |()| Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(record)) => {
            // It will be sent: `outgoing` is emptied in order.
            record.done();
            Step::Again
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
            Step::Done(Received::NeedsMore)
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::Done(Received::Closed),
        // Early data is never offered nor accepted, so rustls does not hand any out.
        Ok(_) => Step::Failed(Error::General("unexpected state of the TLS session".into())),
    };
    (discard, step)
}

/// One turn of [`Session::write`]; `None` asks for another.
fn write_turn<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Waiting,
    action: &mut Action<'_>,
) -> Option<io::Result<usize>> {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => Some(action(&mut traffic, outgoing)),
        Ok(ConnectionState::EncodeTlsData(record)) => {
            encode(record, outgoing).err().map(|error| Err(io::Error::other(error)))
        }
        Ok(ConnectionState::TransmitTlsData(record)) => {
            record.done();
            None
        }
        // Only after both sides closed, or when the handshake or the session failed before.
        Ok(_) => Some(Err(io::ErrorKind::BrokenPipe.into())),
        Err(error) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
    }
}

fn take_record<Data>(status: UnbufferedStatus<'_, '_, Data>, outgoing: &mut Waiting) -> bool {
    match status.state {
        Ok(ConnectionState::EncodeTlsData(record)) => encode(record, outgoing).is_ok(),
        _ => false,
    }
}

fn encode<Data>(mut record: EncodeTlsData<'_, Data>, outgoing: &mut Waiting) -> Result<(), Error> {
    let unexpected = || Error::General("a TLS record could not be encoded".into());
    // The length is told by refusing an empty buffer.
    let len = match record.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => return Err(unexpected()),
    };
    record.encode(outgoing.extend(len)).map(drop).map_err(|_| unexpected())
}
