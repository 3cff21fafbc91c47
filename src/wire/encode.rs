//! Messages that pgweir itself writes, appended to a buffer.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use super::{BackendTag, FrontendTag};

/// Appends a message whose body `body` writes, and fills in its length.
pub fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    with_length(out, body);
}

/// Appends a length field that counts itself and what `body` writes.
pub fn with_length(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a zero-terminated string.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text);
    out.push(0);
}

/// `ReadyForQuery` outside a transaction block.
pub const READY_IDLE: [u8; 6] = *b"Z\0\0\0\x05I";
/// `ParseComplete`.
pub const PARSE_COMPLETE: [u8; 5] = *b"1\0\0\0\x04";
/// `CloseComplete`.
pub const CLOSE_COMPLETE: [u8; 5] = *b"3\0\0\0\x04";
/// `Sync`.
pub const SYNC: [u8; 5] = *b"S\0\0\0\x04";
/// `Terminate`.
pub const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";
/// `AuthenticationOk`.
pub const AUTHENTICATION_OK: [u8; 9] = *b"R\0\0\0\x08\0\0\0\0";
/// `SSLRequest`.
pub const SSL_REQUEST: [u8; 8] = *b"\0\0\0\x08\x04\xd2\x16\x2f";

/// A simple `Query`.
pub fn query(out: &mut Vec<u8>, text: &str) {
    message(out, FrontendTag::QUERY.0, |out| cstr(out, text.as_bytes()));
}

/// `Parse`; `tail` is everything behind the statement's name, as it came from a client.
pub fn parse(out: &mut Vec<u8>, name: &[u8], tail: &[u8]) {
    message(out, FrontendTag::PARSE.0, |out| {
        cstr(out, name);
        out.extend_from_slice(tail);
    });
}

/// `Describe` of a prepared statement.
pub fn describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, FrontendTag::DESCRIBE.0, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

/// `Close` of a prepared statement.
pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, FrontendTag::CLOSE.0, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

/// `Bind` of text parameters to the unnamed portal, results as text.
pub fn bind_text(out: &mut Vec<u8>, statement: &[u8], parameters: &[&str]) {
    message(out, FrontendTag::BIND.0, |out| {
        cstr(out, b"");
        cstr(out, statement);
        text_values(out, parameters);
    });
}

/// What a `Bind` has behind its names: text parameters, results as text.
pub fn text_values(out: &mut Vec<u8>, parameters: &[&str]) {
    out.extend_from_slice(&0_u16.to_be_bytes());
    out.extend_from_slice(&u16::try_from(parameters.len()).unwrap_or(u16::MAX).to_be_bytes());
    for parameter in parameters.iter().take(usize::from(u16::MAX)) {
        let length = u32::try_from(parameter.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(parameter.as_bytes());
    }
    out.extend_from_slice(&0_u16.to_be_bytes());
}

/// `Execute` of the unnamed portal to its end.
pub fn execute(out: &mut Vec<u8>) {
    message(out, FrontendTag::EXECUTE.0, |out| {
        cstr(out, b"");
        out.extend_from_slice(&0_u32.to_be_bytes());
    });
}

/// `Flush`.
pub fn flush(out: &mut Vec<u8>) {
    message(out, FrontendTag::FLUSH.0, |_| ());
}

/// `StartupMessage` of protocol `version`.
pub fn startup<'a>(
    out: &mut Vec<u8>,
    version: u32,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    with_length(out, |out| {
        out.extend_from_slice(&version.to_be_bytes());
        for (name, value) in parameters {
            cstr(out, name.as_bytes());
            cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

/// `CancelRequest`.
pub fn cancel_request(out: &mut Vec<u8>, process_id: u32, secret: &[u8]) {
    with_length(out, |out| {
        out.extend_from_slice(&super::startup::CANCEL_REQUEST_CODE.to_be_bytes());
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// `PasswordMessage`.
pub fn password(out: &mut Vec<u8>, password: &[u8]) {
    message(out, FrontendTag::PASSWORD.0, |out| cstr(out, password));
}

/// `SASLInitialResponse`.
pub fn sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    message(out, FrontendTag::PASSWORD.0, |out| {
        cstr(out, mechanism.as_bytes());
        out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// `SASLResponse`.
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    message(out, FrontendTag::PASSWORD.0, |out| out.extend_from_slice(data));
}

/// An `Authentication…` message: its code and what follows it.
pub fn authentication(out: &mut Vec<u8>, code: u32, data: &[u8]) {
    message(out, BackendTag::AUTHENTICATION.0, |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// `ParameterStatus`.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, BackendTag::PARAMETER_STATUS.0, |out| {
        cstr(out, name.as_bytes());
        cstr(out, value.as_bytes());
    });
}

/// `BackendKeyData`; the secret has 4 bytes with protocol 3.0 and up to 256 with 3.2.
pub fn backend_key_data(out: &mut Vec<u8>, process_id: u32, secret: &[u8]) {
    message(out, BackendTag::BACKEND_KEY_DATA.0, |out| {
        out.extend_from_slice(&process_id.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// `CommandComplete` with `tag`.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, BackendTag::COMMAND_COMPLETE.0, |out| cstr(out, tag.as_bytes()));
}

/// `ReadyForQuery` with a status byte.
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    message(out, BackendTag::READY_FOR_QUERY.0, |out| out.push(status));
}

/// `NegotiateProtocolVersion`: the newest minor version we speak, and the options we do not know.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, minor: u32, unknown_options: &[&str]) {
    message(out, BackendTag::NEGOTIATE_PROTOCOL_VERSION.0, |out| {
        out.extend_from_slice(&((3 << 16) | minor).to_be_bytes());
        let count = u32::try_from(unknown_options.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_be_bytes());
        for option in unknown_options {
            cstr(out, option.as_bytes());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_itself_but_not_the_tag() {
        let mut out = Vec::new();
        query(&mut out, "abc");
        assert_eq!(out, b"Q\0\0\0\x08abc\0");
    }

    #[test]
    fn text_parameters_are_bound_in_order() {
        let mut out = Vec::new();
        bind_text(&mut out, b"s", &["a", "bc"]);
        assert_eq!(out, b"B\0\0\0\x18\0s\0\0\0\0\x02\0\0\0\x01a\0\0\0\x02bc\0\0");
    }
}
