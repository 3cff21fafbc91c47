//! The `ErrorResponse` and `NoticeResponse` that pgweir itself sends, and the fields of those it reads.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>

use super::frame::take_cstr;
use super::{BackendTag, SqlState, encode};
use std::borrow::Cow;

/// How bad it is, in the words of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The connection ends.
    Fatal,
    /// The statement failed; the connection goes on.
    Error,
    /// Nothing failed, but something may be amiss.
    Warning,
    /// Nothing failed.
    Notice,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// A refusal as the client reads it: what happened, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// How bad it is.
    pub severity: Severity,
    /// The code that programs look at.
    pub sqlstate: SqlState,
    /// What happened; names no host, secret or inner cause.
    pub message: Cow<'static, str>,
    /// What was observed, such as how long was waited.
    pub detail: Option<Cow<'static, str>>,
    /// What the reader can do.
    pub hint: Option<Cow<'static, str>>,
}

impl ErrorResponse {
    /// An error that ends the connection.
    pub fn fatal(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Fatal, sqlstate, message)
    }

    /// An error that ends the statement.
    pub fn error(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Error, sqlstate, message)
    }

    /// Something that the client should know of and that ends nothing.
    pub fn warning(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Warning, sqlstate, message)
    }

    /// Something that the client may like to know.
    pub fn notice(sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Notice, sqlstate, message)
    }

    fn new(severity: Severity, sqlstate: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self { severity, sqlstate, message: message.into(), detail: None, hint: None }
    }

    /// The same with a DETAIL line.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with a HINT line.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let tag = match self.severity {
            Severity::Fatal | Severity::Error => BackendTag::ERROR_RESPONSE,
            Severity::Warning | Severity::Notice => BackendTag::NOTICE_RESPONSE,
        };
        encode::message(out, tag.0, |out| {
            field(out, b'S', self.severity.as_str());
            field(out, b'V', self.severity.as_str());
            field(out, b'C', self.sqlstate.as_str());
            field(out, b'M', &self.message);
            if let Some(detail) = &self.detail {
                field(out, b'D', detail);
            }
            if let Some(hint) = &self.hint {
                field(out, b'H', hint);
            }
            out.push(0);
        });
    }

    /// The message as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.encode(&mut out);
        out
    }
}

fn field(out: &mut Vec<u8>, code: u8, text: &str) {
    out.push(code);
    // A zero would end the field early and let the rest pass for other fields.
    out.extend(text.bytes().filter(|&byte| byte != 0));
    out.push(0);
}

/// The body of a server's `ErrorResponse` in the words of another severity, for a connection that is not the one it
/// was meant for.
#[must_use]
pub fn with_severity(mut body: &[u8], severity: Severity) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    while let Some((&code, rest)) = body.split_first() {
        body = rest;
        let Some(value) = take_cstr(&mut body) else { break };
        out.push(code);
        out.extend_from_slice(match code {
            b'S' | b'V' => severity.as_str().as_bytes(),
            _ => value,
        });
        out.push(0);
    }
    out.push(0);
    out
}

/// The fields of a server's `ErrorResponse` that decide what pgweir does.
///
/// A server may leave out any of them, and no field is trusted to be text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// Field `C`, if it has the form of a code.
    pub sqlstate: Option<SqlState>,
    /// Field `V` (or `S` from before 9.6) says FATAL or PANIC: the server ends the connection.
    pub fatal: bool,
    /// Field `M`.
    pub message: &'a [u8],
    /// Field `R`: the function in the server's source that refused.
    pub routine: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads the body of an `ErrorResponse`; what cannot be read is left out.
    #[must_use]
    pub fn read(mut body: &'a [u8]) -> Self {
        let mut fields = Self { sqlstate: None, fatal: false, message: b"", routine: b"" };
        while let Some((&code, rest)) = body.split_first() {
            body = rest;
            let Some(value) = take_cstr(&mut body) else { break };
            match code {
                b'C' => fields.sqlstate = SqlState::from_bytes(value),
                b'S' | b'V' => fields.fatal |= value == b"FATAL" || value == b"PANIC",
                b'M' => fields.message = value,
                b'R' => fields.routine = value,
                _ => {}
            }
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = ErrorResponse::fatal(SqlState::TOO_MANY_CONNECTIONS, "full")
            .with_hint("wait")
            .to_bytes();
        let fields = ErrorFields::read(&bytes[5..]);
        assert_eq!(fields.sqlstate, Some(SqlState::TOO_MANY_CONNECTIONS));
        assert!(fields.fatal);
        assert_eq!(fields.message, b"full");
    }

    #[test]
    fn a_zero_in_a_text_forges_no_field() {
        let bytes = ErrorResponse::error(SqlState::INTERNAL_ERROR, "a\0CXXXXX").to_bytes();
        assert_eq!(ErrorFields::read(&bytes[5..]).sqlstate, Some(SqlState::INTERNAL_ERROR));
    }

    #[test]
    fn an_error_without_a_code_is_tolerated() {
        let fields = ErrorFields::read(b"Moops\0\0");
        assert_eq!(fields.sqlstate, None);
        assert_eq!(fields.message, b"oops");
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = ErrorFields::read(&body);
        }
    }
}
