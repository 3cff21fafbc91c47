//! The first byte of each message, one type per direction.
//!
//! `b'D'` is Describe one way and `DataRow` the other, so mixing them up does not compile.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

/// First byte of a message sent by a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrontendTag(pub u8);

#[allow(missing_docs, reason = "the names are those of the message formats")]
impl FrontendTag {
    pub const BIND: Self = Self(b'B');
    pub const CLOSE: Self = Self(b'C');
    pub const COPY_DATA: Self = Self(b'd');
    pub const COPY_DONE: Self = Self(b'c');
    pub const COPY_FAIL: Self = Self(b'f');
    pub const DESCRIBE: Self = Self(b'D');
    pub const EXECUTE: Self = Self(b'E');
    pub const FLUSH: Self = Self(b'H');
    pub const FUNCTION_CALL: Self = Self(b'F');
    pub const PARSE: Self = Self(b'P');
    /// `PasswordMessage`, `SASLInitialResponse`, `SASLResponse` and `GSSResponse` share it.
    pub const PASSWORD: Self = Self(b'p');
    pub const QUERY: Self = Self(b'Q');
    pub const SYNC: Self = Self(b'S');
    pub const TERMINATE: Self = Self(b'X');
}

/// First byte of a message sent by a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendTag(pub u8);

#[allow(missing_docs, reason = "the names are those of the message formats")]
impl BackendTag {
    pub const AUTHENTICATION: Self = Self(b'R');
    pub const BACKEND_KEY_DATA: Self = Self(b'K');
    pub const BIND_COMPLETE: Self = Self(b'2');
    pub const CLOSE_COMPLETE: Self = Self(b'3');
    pub const COMMAND_COMPLETE: Self = Self(b'C');
    pub const COPY_BOTH_RESPONSE: Self = Self(b'W');
    pub const COPY_DATA: Self = Self(b'd');
    pub const COPY_DONE: Self = Self(b'c');
    pub const COPY_IN_RESPONSE: Self = Self(b'G');
    pub const COPY_OUT_RESPONSE: Self = Self(b'H');
    pub const DATA_ROW: Self = Self(b'D');
    pub const EMPTY_QUERY_RESPONSE: Self = Self(b'I');
    pub const ERROR_RESPONSE: Self = Self(b'E');
    pub const FUNCTION_CALL_RESPONSE: Self = Self(b'V');
    pub const NEGOTIATE_PROTOCOL_VERSION: Self = Self(b'v');
    pub const NO_DATA: Self = Self(b'n');
    pub const NOTICE_RESPONSE: Self = Self(b'N');
    pub const NOTIFICATION_RESPONSE: Self = Self(b'A');
    pub const PARAMETER_DESCRIPTION: Self = Self(b't');
    pub const PARAMETER_STATUS: Self = Self(b'S');
    pub const PARSE_COMPLETE: Self = Self(b'1');
    pub const PORTAL_SUSPENDED: Self = Self(b's');
    pub const READY_FOR_QUERY: Self = Self(b'Z');
    pub const ROW_DESCRIPTION: Self = Self(b'T');
}
