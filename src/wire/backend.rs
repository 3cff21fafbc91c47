//! The messages of a server whose fields pgweir looks at.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use super::frame::take_cstr;

/// What a server demands in an `Authentication…` message.
#[derive(Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing (more).
    Ok,
    /// The password as it is.
    CleartextPassword,
    /// The password hashed with this salt.
    Md5Password([u8; 4]),
    /// One of these SASL mechanisms.
    Sasl(Vec<&'a str>),
    /// The next SASL message.
    SaslContinue(&'a [u8]),
    /// The last SASL message.
    SaslFinal(&'a [u8]),
    /// A method that pgweir does not speak.
    Unsupported(u32),
}

impl<'a> Authentication<'a> {
    /// Reads a whole body; `None` if it is malformed.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (code, data) = body.split_first_chunk::<4>()?;
        Some(match u32::from_be_bytes(*code) {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password(data.try_into().ok()?),
            10 => Self::Sasl(mechanisms(data)?),
            11 => Self::SaslContinue(data),
            12 => Self::SaslFinal(data),
            other => Self::Unsupported(other),
        })
    }
}

fn mechanisms(mut data: &[u8]) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    loop {
        match take_cstr(&mut data)? {
            b"" => return Some(names),
            name => names.push(std::str::from_utf8(name).ok()?),
        }
    }
}

/// `ParameterStatus`: name and value.
#[must_use]
pub fn parameter_status(mut body: &[u8]) -> Option<(&str, &str)> {
    let name = std::str::from_utf8(take_cstr(&mut body)?).ok()?;
    let value = std::str::from_utf8(take_cstr(&mut body)?).ok()?;
    body.is_empty().then_some((name, value))
}

/// `BackendKeyData`: process id and secret (4 to 256 bytes).
#[must_use]
pub fn backend_key_data(body: &[u8]) -> Option<(u32, &[u8])> {
    let (process_id, secret) = body.split_first_chunk::<4>()?;
    let fits = (4..=super::startup::CANCEL_SECRET_MAX).contains(&secret.len());
    fits.then_some((u32::from_be_bytes(*process_id), secret))
}

/// The channel of a `NotificationResponse`.
#[must_use]
pub fn channel(body: &[u8]) -> Option<&[u8]> {
    let (_process_id, mut rest) = body.split_first_chunk::<4>()?;
    take_cstr(&mut rest)
}

/// The columns of a `DataRow`, `None` for NULL.
#[must_use]
pub fn data_row(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let (value, after) = match usize::try_from(length) {
            Ok(length) => {
                after.split_at_checked(length).map(|(value, rest)| (Some(value), rest))?
            }
            Err(_) => (None, after),
        };
        columns.push(value);
        rest = after;
    }
    rest.is_empty().then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn authentication_requests_are_read() {
        assert_eq!(Authentication::read(b"\0\0\0\0"), Some(Authentication::Ok));
        assert_eq!(
            Authentication::read(b"\0\0\0\x05abcd"),
            Some(Authentication::Md5Password(*b"abcd"))
        );
        assert_eq!(
            Authentication::read(b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
            Some(Authentication::Sasl(vec!["SCRAM-SHA-256"]))
        );
        assert_eq!(Authentication::read(b"\0\0\0\x07"), Some(Authentication::Unsupported(7)));
        assert_eq!(Authentication::read(b"\0\0\0\x05abc"), None);
    }

    #[test]
    fn a_row_has_values_and_nulls() {
        let row = b"\0\x02\0\0\0\x01a\xff\xff\xff\xff";
        assert_eq!(data_row(row), Some(vec![Some(&b"a"[..]), None]));
        assert_eq!(data_row(b"\0\x01\0\0\0\x09a"), None);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Authentication::read(&body);
            let _ = parameter_status(&body);
            let _ = backend_key_data(&body);
            let _ = data_row(&body);
        }
    }
}
