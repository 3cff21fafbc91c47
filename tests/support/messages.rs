//! Protocol 3 messages as the tests write and read them. Written from the documentation, not from
//! pgweir's codec.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::fmt::Write as _;

/// Request codes that stand where a startup packet has its version.
pub const PROTOCOL_3_0: u32 = 3 << 16;
pub const PROTOCOL_3_2: u32 = (3 << 16) | 2;
pub const CANCEL_REQUEST: u32 = 80_877_102;
pub const SSL_REQUEST: u32 = 80_877_103;
pub const GSSENC_REQUEST: u32 = 80_877_104;

/// Messages that a client sends.
pub mod frontend {
    use super::frame;

    /// The first packet: a code and what follows it.
    pub fn untagged(code: u32, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + rest.len()).unwrap();
        [&length.to_be_bytes(), &code.to_be_bytes(), rest].concat()
    }

    /// `StartupMessage`.
    pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut rest = Vec::new();
        for (name, value) in parameters {
            rest.extend_from_slice(name.as_bytes());
            rest.push(0);
            rest.extend_from_slice(value.as_bytes());
            rest.push(0);
        }
        rest.push(0);
        untagged(version, &rest)
    }

    /// `CancelRequest`, with a key of any length.
    pub fn cancel(process_id: u32, key: &[u8]) -> Vec<u8> {
        untagged(super::CANCEL_REQUEST, &[&process_id.to_be_bytes(), key].concat())
    }

    pub fn query(sql: &str) -> Vec<u8> {
        frame(b'Q', &[sql.as_bytes(), b"\0"])
    }

    /// Parse without parameter types.
    pub fn parse(statement: &str, sql: &str) -> Vec<u8> {
        frame(b'P', &[statement.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"])
    }

    /// Bind with parameters in text format; `None` is NULL.
    pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Vec<u8> {
        let mut values = u16::try_from(parameters.len()).unwrap().to_be_bytes().to_vec();
        for parameter in parameters {
            let Some(value) = parameter else {
                values.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            };
            values.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            values.extend_from_slice(value.as_bytes());
        }
        let formats = b"\0\0";
        frame(
            b'B',
            &[portal.as_bytes(), b"\0", statement.as_bytes(), b"\0", formats, &values, formats],
        )
    }

    /// Describe; `kind` is `b'S'` for a statement and `b'P'` for a portal.
    pub fn describe(kind: u8, name: &str) -> Vec<u8> {
        frame(b'D', &[&[kind], name.as_bytes(), b"\0"])
    }

    /// Execute; `rows_max` 0 means all.
    pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
        frame(b'E', &[portal.as_bytes(), b"\0", &rows_max.to_be_bytes()])
    }

    /// Close; `kind` as for [`describe`].
    pub fn close(kind: u8, name: &str) -> Vec<u8> {
        frame(b'C', &[&[kind], name.as_bytes(), b"\0"])
    }

    pub fn sync() -> Vec<u8> {
        frame(b'S', &[])
    }

    pub fn flush() -> Vec<u8> {
        frame(b'H', &[])
    }

    pub fn terminate() -> Vec<u8> {
        frame(b'X', &[])
    }

    pub fn copy_data(data: &[u8]) -> Vec<u8> {
        frame(b'd', &[data])
    }

    pub fn copy_done() -> Vec<u8> {
        frame(b'c', &[])
    }

    pub fn copy_fail(reason: &str) -> Vec<u8> {
        frame(b'f', &[reason.as_bytes(), b"\0"])
    }

    /// The message of every password and SASL answer.
    pub fn password(body: &[u8]) -> Vec<u8> {
        frame(b'p', &[body])
    }

    /// `FunctionCall` with arguments in text format and a result in text format.
    pub fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend_from_slice(b"\0\0");
        body.extend_from_slice(&u16::try_from(arguments.len()).unwrap().to_be_bytes());
        for argument in arguments {
            body.extend_from_slice(&u32::try_from(argument.len()).unwrap().to_be_bytes());
            body.extend_from_slice(argument.as_bytes());
        }
        body.extend_from_slice(b"\0\0");
        frame(b'F', &[&body])
    }
}

/// Messages that a scripted server sends.
pub mod backend {
    use super::frame;

    pub fn authentication_ok() -> Vec<u8> {
        frame(b'R', &[&0_u32.to_be_bytes()])
    }

    pub fn authentication_cleartext() -> Vec<u8> {
        frame(b'R', &[&3_u32.to_be_bytes()])
    }

    pub fn parameter_status(name: &str, value: &str) -> Vec<u8> {
        frame(b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"])
    }

    pub fn backend_key_data(process_id: u32, key: &[u8]) -> Vec<u8> {
        frame(b'K', &[&process_id.to_be_bytes(), key])
    }

    /// `status` is `b'I'`, `b'T'` or `b'E'`.
    pub fn ready_for_query(status: u8) -> Vec<u8> {
        frame(b'Z', &[&[status]])
    }

    pub fn command_complete(tag: &str) -> Vec<u8> {
        frame(b'C', &[tag.as_bytes(), b"\0"])
    }

    pub fn parse_complete() -> Vec<u8> {
        frame(b'1', &[])
    }

    pub fn bind_complete() -> Vec<u8> {
        frame(b'2', &[])
    }

    pub fn close_complete() -> Vec<u8> {
        frame(b'3', &[])
    }

    pub fn no_data() -> Vec<u8> {
        frame(b'n', &[])
    }

    pub fn parameter_description() -> Vec<u8> {
        frame(b't', &[b"\0\0"])
    }

    /// `RowDescription` of text columns.
    pub fn row_description(columns: &[&str]) -> Vec<u8> {
        let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for column in columns {
            body.extend_from_slice(column.as_bytes());
            // Table, attribute, type text, variable length, no modifier, text format.
            body.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
        }
        frame(b'T', &[&body])
    }

    pub fn data_row(values: &[&str]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
        frame(b'D', &[&body])
    }

    pub fn error(severity: &str, sqlstate: &str, message: &str) -> Vec<u8> {
        let field = |code: char, value: &str| format!("{code}{value}\0");
        let fields = [
            field('S', severity),
            field('V', severity),
            field('C', sqlstate),
            field('M', message),
            "\0".to_owned(),
        ];
        frame(b'E', &[fields.concat().as_bytes()])
    }
}

/// A tagged message.
pub fn frame(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(4 + body.len()).unwrap();
    [&[tag], length.to_be_bytes().as_slice(), &body].concat()
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// A line for transcripts, for a message of the server: its name and what tests compare, such as
    /// `DataRow 1|null`, `CommandComplete SELECT 1`, `ReadyForQuery I`, `ErrorResponse ERROR 42P01`.
    pub fn line(&self) -> String {
        match self.tag {
            b'1' => "ParseComplete".to_owned(),
            b'2' => "BindComplete".to_owned(),
            b'3' => "CloseComplete".to_owned(),
            b'A' => self.notification(),
            b'C' => format!("CommandComplete {}", self.strings().join(" ")),
            b'D' => format!("DataRow {}", self.values().join("|")),
            b'E' => format!("ErrorResponse {} {}", self.field('V'), self.field('C')),
            b'G' => "CopyInResponse".to_owned(),
            b'H' => "CopyOutResponse".to_owned(),
            b'I' => "EmptyQueryResponse".to_owned(),
            b'K' => "BackendKeyData".to_owned(),
            b'N' => format!("NoticeResponse {} {}", self.field('V'), self.field('C')),
            b'R' => format!("Authentication {}", self.number_at(0)),
            b'S' => format!("ParameterStatus {}", self.strings().join("=")),
            b'T' => format!("RowDescription {}", self.columns().join("|")),
            b'V' => format!("FunctionCallResponse {}", self.single_value()),
            b'W' => "CopyBothResponse".to_owned(),
            b'Z' => format!("ReadyForQuery {}", self.body.first().map_or('?', |&b| b.into())),
            b'c' => "CopyDone".to_owned(),
            b'd' => format!("CopyData {}", String::from_utf8_lossy(&self.body).trim_end()),
            b'n' => "NoData".to_owned(),
            b's' => "PortalSuspended".to_owned(),
            b't' => format!("ParameterDescription {}", self.count_at(0)),
            b'v' => format!("NegotiateProtocolVersion {}", self.number_at(0)),
            other => format!("message 0x{other:02x}"),
        }
    }

    /// A field of an `ErrorResponse` or `NoticeResponse`; empty when it is absent.
    pub fn field(&self, code: char) -> String {
        self.strings()
            .into_iter()
            .find_map(|field| field.strip_prefix(code).map(str::to_owned))
            .unwrap_or_default()
    }

    /// The values of a `DataRow` in text format.
    pub fn values(&self) -> Vec<String> {
        let mut values = Vec::new();
        let mut rest = &self.body[2..];
        for _ in 0..self.count_at(0) {
            let value;
            (value, rest) = take_value(rest);
            values.push(value);
        }
        values
    }

    /// Zero-terminated strings, one after the other.
    pub fn strings(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.body);
        text.split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// A 32-bit number at this offset.
    pub fn number_at(&self, offset: usize) -> u32 {
        u32::from_be_bytes(self.body[offset..offset + 4].try_into().unwrap())
    }

    fn count_at(&self, offset: usize) -> u16 {
        u16::from_be_bytes(self.body[offset..offset + 2].try_into().unwrap())
    }

    fn single_value(&self) -> String {
        take_value(&self.body).0
    }

    fn columns(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut rest = &self.body[2..];
        for _ in 0..self.count_at(0) {
            let end = rest.iter().position(|&byte| byte == 0).unwrap();
            names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
            rest = &rest[end + 1 + 18..];
        }
        names
    }

    fn notification(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[4..]);
        let mut line = "NotificationResponse".to_owned();
        for part in text.split('\0').take(2) {
            let _ = write!(line, " {part}");
        }
        line
    }
}

fn take_value(input: &[u8]) -> (String, &[u8]) {
    let (length, rest) = input.split_first_chunk().unwrap();
    let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
        return ("null".to_owned(), rest);
    };
    let (value, rest) = rest.split_at(length);
    (String::from_utf8_lossy(value).into_owned(), rest)
}
