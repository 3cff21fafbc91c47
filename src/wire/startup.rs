//! The packets that open a connection: they have no tag byte.
//!
//! Everything here is believed by nobody yet, so sizes are small and fixed.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

use super::frame::take_cstr;

/// Most bytes of a startup packet, as in PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`.
pub const STARTUP_PACKET_MAX: usize = 10_000;

/// Request code of a `CancelRequest`.
pub const CANCEL_REQUEST_CODE: u32 = 80_877_102;
const SSL_REQUEST_CODE: u32 = 80_877_103;
const GSSENC_REQUEST_CODE: u32 = 80_877_104;

/// Protocol 3.0.
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// Protocol 3.2, with cancel keys of variable length.
pub const PROTOCOL_3_2: u32 = (3 << 16) | 2;

/// Longest secret of a cancel key in protocol 3.2.
pub const CANCEL_SECRET_MAX: usize = 256;

/// What a client asks for with its first packet.
#[derive(Debug, PartialEq, Eq)]
pub enum StartupPacket<'a> {
    /// Wants TLS; answered with one byte.
    SslRequest,
    /// Wants GSSAPI encryption; answered with one byte.
    GssEncRequest,
    /// Wants another connection's statement cancelled; answered with nothing.
    Cancel(CancelKey<'a>),
    /// Wants a session.
    Startup(Startup<'a>),
}

/// The pair that names a connection in a `CancelRequest`.
#[derive(PartialEq, Eq, Clone, Copy)]
pub struct CancelKey<'a> {
    /// Which connection.
    pub process_id: u32,
    /// Proof that the sender may cancel it: 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: &'a [u8],
}

impl std::fmt::Debug for CancelKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// A `StartupMessage`.
#[derive(Debug, PartialEq, Eq)]
pub struct Startup<'a> {
    /// Protocol version asked for: major in the upper 16 bits, minor in the lower.
    pub version: u32,
    /// Name and value as sent, `_pq_.` options included.
    pub parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Startup<'a> {
    /// The value of the parameter `name`; the last one counts, as in PostgreSQL.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// Why a startup packet is no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// Shorter than its own header or longer than [`STARTUP_PACKET_MAX`].
    #[error("invalid length of startup packet")]
    Length,
    /// A major version other than 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Version {
        /// Major version asked for.
        major: u32,
        /// Minor version asked for.
        minor: u32,
    },
    /// Names and values are not zero-terminated pairs.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A name or value is not UTF-8.
    #[error("startup packet holds text that is not UTF-8")]
    Encoding,
}

/// Bytes of the packet at the front of `input`; `None` while its length has not come.
///
/// # Errors
/// [`StartupError::Length`].
pub fn packet_len(input: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some(length) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if (8..=STARTUP_PACKET_MAX).contains(&length) {
        Ok(Some(length))
    } else {
        Err(StartupError::Length)
    }
}

/// Reads one whole packet, its length field included.
///
/// # Errors
/// Any [`StartupError`]; the connection is then closed.
pub fn read(packet: &[u8]) -> Result<StartupPacket<'_>, StartupError> {
    let Some((head, rest)) = packet.split_first_chunk::<8>() else {
        return Err(StartupError::Length);
    };
    let [_, _, _, _, code @ ..] = *head;
    match u32::from_be_bytes(code) {
        SSL_REQUEST_CODE => empty(rest, StartupPacket::SslRequest),
        GSSENC_REQUEST_CODE => empty(rest, StartupPacket::GssEncRequest),
        CANCEL_REQUEST_CODE => cancel(rest),
        version => startup(version, rest),
    }
}

fn empty<'a>(rest: &[u8], packet: StartupPacket<'a>) -> Result<StartupPacket<'a>, StartupError> {
    if rest.is_empty() { Ok(packet) } else { Err(StartupError::Length) }
}

fn cancel(rest: &[u8]) -> Result<StartupPacket<'_>, StartupError> {
    let Some((process_id, secret)) = rest.split_first_chunk::<4>() else {
        return Err(StartupError::Length);
    };
    if secret.is_empty() || secret.len() > CANCEL_SECRET_MAX {
        return Err(StartupError::Length);
    }
    let process_id = u32::from_be_bytes(*process_id);
    Ok(StartupPacket::Cancel(CancelKey { process_id, secret }))
}

fn startup(version: u32, mut rest: &[u8]) -> Result<StartupPacket<'_>, StartupError> {
    let (major, minor) = (version >> 16, version & 0xffff);
    if major != 3 {
        return Err(StartupError::Version { major, minor });
    }
    let mut parameters = Vec::new();
    loop {
        let name = text(&mut rest)?;
        if name.is_empty() {
            break;
        }
        parameters.push((name, text(&mut rest)?));
    }
    if !rest.is_empty() {
        return Err(StartupError::Layout);
    }
    Ok(StartupPacket::Startup(Startup { version, parameters }))
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, StartupError> {
    let bytes = take_cstr(rest).ok_or(StartupError::Layout)?;
    std::str::from_utf8(bytes).map_err(|_| StartupError::Encoding)
}

/// Why the startup parameter `options` could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Something other than `-c name=value` or `--name=value`.
    #[error("invalid command-line argument for server process")]
    Argument,
    /// `-c` or `--name` without a value.
    #[error("-c requires a value")]
    Value,
}

/// The settings in `options`: `-c name=value`, `-cname=value` and `--name=value`.
///
/// A backslash takes the next character as it is; dashes in a `--name` stand for underscores.
///
/// # Errors
/// [`OptionsError`] for any other switch.
///
/// Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS>
pub fn read_options(options: &str) -> Result<Vec<(String, String)>, OptionsError> {
    let mut settings = Vec::new();
    let mut words = split_options(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" || word == "--" {
            words.next().ok_or(OptionsError::Value)?
        } else if let Some(rest) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            rest.to_owned()
        } else {
            return Err(OptionsError::Argument);
        };
        let (name, value) = assignment.split_once('=').ok_or(OptionsError::Value)?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split_options(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let word = word.get_or_insert_default();
                word.extend(chars.next());
            }
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode;
    use proptest::prelude::*;

    fn packet(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::startup(&mut out, version, parameters.iter().copied());
        out
    }

    #[test]
    fn a_startup_message_is_read() {
        let bytes = packet(PROTOCOL_3_2, &[("user", "app"), ("database", "shop")]);
        let Ok(StartupPacket::Startup(startup)) = read(&bytes) else { panic!("not a startup") };
        assert_eq!(startup.version, PROTOCOL_3_2);
        assert_eq!(startup.get("user"), Some("app"));
        assert_eq!(startup.get("missing"), None);
    }

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(read(&encode::SSL_REQUEST), Ok(StartupPacket::SslRequest));
        assert_eq!(read(b"\0\0\0\x08\x04\xd2\x16\x30"), Ok(StartupPacket::GssEncRequest));
        let mut cancel = Vec::new();
        encode::cancel_request(&mut cancel, 7, b"abcd");
        assert_eq!(
            read(&cancel),
            Ok(StartupPacket::Cancel(CancelKey { process_id: 7, secret: b"abcd" }))
        );
    }

    #[test]
    fn bad_packets_are_refused() {
        assert_eq!(packet_len(b"\0\0\0\x07"), Err(StartupError::Length));
        assert_eq!(packet_len(b"\xff\xff\xff\xff"), Err(StartupError::Length));
        assert_eq!(packet_len(b"\0\0\x27\x11"), Err(StartupError::Length));
        assert_eq!(packet_len(b"\0\0\x27\x10"), Ok(Some(10_000)));
        assert_eq!(read(&packet(2 << 16, &[])), Err(StartupError::Version { major: 2, minor: 0 }));
        assert_eq!(read(b"\0\0\0\x0c\0\x03\0\0user"), Err(StartupError::Layout));
        assert_eq!(read(b"\0\0\0\x0a\0\x03\0\0\0x"), Err(StartupError::Layout));
        assert_eq!(read(b"\0\0\0\x0d\0\x03\0\0\xff\0x\0\0"), Err(StartupError::Encoding));
        assert_eq!(read(b"\0\0\0\x0c\x04\xd2\x16\x2e\0\0\0\x01"), Err(StartupError::Length));
    }

    #[test]
    fn options_are_read_as_postgres_reads_them() {
        assert_eq!(
            read_options(r"-c geqo=off --work-mem=4MB -csearch_path=a\ b,\\c"),
            Ok(vec![
                ("geqo".into(), "off".into()),
                ("work_mem".into(), "4MB".into()),
                ("search_path".into(), r"a b,\c".into()),
            ])
        );
        assert_eq!(read_options("-d 5"), Err(OptionsError::Argument));
        assert_eq!(read_options("-c geqo"), Err(OptionsError::Value));
        assert_eq!(read_options("  "), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn no_packet_panics(input in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = packet_len(&input);
            let _ = read(&input);
        }

        #[test]
        fn no_options_panic(input in ".{0,64}") {
            let _ = read_options(&input);
        }
    }
}
