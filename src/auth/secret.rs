//! A database user's name and password, as Secrets Manager keeps them.
//!
//! The format is the one RDS and RDS Proxy read: a JSON object of which `username` and `password` count and
//! everything else (`host`, `port` as a number or as text, `engine`, ...) is ignored. Neither an error nor
//! any other output of this module holds a piece of the content.
//!
//! Source: <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html>

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::hash;

/// Largest secret, in bytes, that is read: Secrets Manager's own limit.
pub const SECRET_LEN_MAX: usize = 65_536;

/// A database user and its password. Equality takes constant time for passwords of one length.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The database user, as in the startup packet. Not empty, without NUL.
    pub username: String,
    /// Its password. Not empty, without NUL.
    pub password: Password,
}

/// A password in clear. It is overwritten when dropped, and has neither `Debug` nor `Display`.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Wraps `password`; every text is allowed.
    #[must_use]
    pub fn new(password: String) -> Self {
        Self(Zeroizing::new(password))
    }

    /// The password in clear, for key derivation and for a target that asks for it over TLS.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `other` is this password. Its duration tells nothing but whether the lengths are equal.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        hash::equal(self.0.as_bytes(), other)
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Password {}

impl Secret {
    /// Reads a secret in Secrets Manager's format.
    ///
    /// Where a key is given twice, the last one counts, as in the rotation functions of AWS.
    ///
    /// # Errors
    /// [`SecretError`] names the first thing that is wrong, and never what the secret holds.
    pub fn from_json(json: &[u8]) -> Result<Self, SecretError> {
        if json.len() > SECRET_LEN_MAX {
            return Err(SecretError::TooLong { len: json.len() });
        }
        let fields: Fields = serde_json::from_slice(json).map_err(|error| {
            // serde_json's own text may quote the input, so only its category is kept.
            if error.is_data() { SecretError::NotAnObject } else { SecretError::NotJson }
        })?;
        let username = text(SecretKey::Username, fields.username)?;
        let password = text(SecretKey::Password, fields.password)?;
        Ok(Self { username: username.as_str().to_owned(), password: Password(password) })
    }
}

/// Why a secret cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// More than [`SECRET_LEN_MAX`] bytes.
    #[error("the secret has {len} bytes, more than {SECRET_LEN_MAX}")]
    TooLong {
        /// Bytes it has.
        len: usize,
    },
    /// Not JSON in UTF-8, or not one value alone.
    #[error("the secret is not JSON")]
    NotJson,
    /// JSON, but not `{...}`.
    #[error("the secret is not a JSON object")]
    NotAnObject,
    /// The object lacks a key (keys are case-sensitive).
    #[error("the secret lacks the key \"{0}\"")]
    Missing(SecretKey),
    /// The value is a number, `null`, a list, ...
    #[error("\"{0}\" in the secret is not a string")]
    NotAString(SecretKey),
    /// The value is `""`.
    #[error("\"{0}\" in the secret is empty")]
    Empty(SecretKey),
    /// The value holds a NUL character, which no message of the protocol can carry.
    #[error("\"{0}\" in the secret contains a NUL character")]
    ContainsNul(SecretKey),
}

/// The keys of a secret that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKey {
    /// `username`
    Username,
    /// `password`
    Password,
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Username => "username",
            Self::Password => "password",
        })
    }
}

fn text(key: SecretKey, value: Value) -> Result<Zeroizing<String>, SecretError> {
    match value {
        Value::Absent => Err(SecretError::Missing(key)),
        Value::Other => Err(SecretError::NotAString(key)),
        Value::Text(text) if text.is_empty() => Err(SecretError::Empty(key)),
        Value::Text(text) if text.contains('\0') => Err(SecretError::ContainsNul(key)),
        Value::Text(text) => Ok(text),
    }
}

/// What the JSON holds, before it is judged. Read by hand rather than derived, so that a wrong type can be
/// told from a missing key and the password goes straight into memory that is overwritten.
#[derive(Default)]
struct Fields {
    username: Value,
    password: Value,
}

#[derive(Default)]
enum Value {
    #[default]
    Absent,
    Text(Zeroizing<String>),
    Other,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        // An owned key: one with an escape cannot be borrowed from the input.
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "username" => fields.username = map.next_value()?,
                "password" => fields.password = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(json: &str) -> SecretError {
        Secret::from_json(json.as_bytes()).err().unwrap()
    }

    #[test]
    fn the_full_secret_of_rds_is_read_and_all_but_two_keys_are_ignored() {
        let port_and_rest = [
            r#""port":5432"#,
            r#""port":"5432""#,
            r#""engine":"postgres","host":"db","dbname":null,"nested":{"password":1,"a":[1,{}]}"#,
        ];
        for rest in port_and_rest {
            let json = format!(r#"{{"username":"app",{rest},"password":"s3cret"}}"#);
            let secret = Secret::from_json(json.as_bytes()).ok().unwrap();
            assert_eq!(secret.username, "app");
            assert_eq!(secret.password.expose(), "s3cret");
        }
    }

    #[test]
    fn escapes_and_white_space_are_json_s_own() {
        let json = br#" { "user\u006eame" : "a\"b" , "password" : "p\u00e9\n" } "#;
        let secret = Secret::from_json(json).ok().unwrap();
        assert_eq!(secret.username, "a\"b");
        assert_eq!(secret.password.expose(), "p\u{e9}\n");
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let json = br#"{"username":1,"username":"app","password":"old","password":"new"}"#;
        let secret = Secret::from_json(json).ok().unwrap();
        assert!(secret.password.matches(b"new"));
    }

    #[test]
    fn each_defect_is_named() {
        use SecretKey::{Password, Username};
        let table = [
            ("", SecretError::NotJson),
            ("{", SecretError::NotJson),
            ("hunter2", SecretError::NotJson),
            (r#"{"username":"a","password":"b"} x"#, SecretError::NotJson),
            (r#"{"username":"a","password":"b",}"#, SecretError::NotJson),
            (r#"{username:"a"}"#, SecretError::NotJson),
            (r#""hunter2""#, SecretError::NotAnObject),
            ("[]", SecretError::NotAnObject),
            ("null", SecretError::NotAnObject),
            ("12", SecretError::NotAnObject),
            ("{}", SecretError::Missing(Username)),
            (r#"{"Username":"a","password":"b"}"#, SecretError::Missing(Username)),
            (r#"{"username":"a"}"#, SecretError::Missing(Password)),
            (r#"{"username":null,"password":"b"}"#, SecretError::NotAString(Username)),
            (r#"{"username":"a","password":5}"#, SecretError::NotAString(Password)),
            (r#"{"username":"a","password":-5.5}"#, SecretError::NotAString(Password)),
            (r#"{"username":"a","password":-5}"#, SecretError::NotAString(Password)),
            (r#"{"username":"a","password":true}"#, SecretError::NotAString(Password)),
            (r#"{"username":"a","password":["b"]}"#, SecretError::NotAString(Password)),
            (r#"{"username":"a","password":{"b":1}}"#, SecretError::NotAString(Password)),
            (r#"{"username":"","password":"b"}"#, SecretError::Empty(Username)),
            (r#"{"username":"a","password":""}"#, SecretError::Empty(Password)),
            (r#"{"username":"a\u0000","password":"b"}"#, SecretError::ContainsNul(Username)),
            (r#"{"username":"a","password":"\u0000b"}"#, SecretError::ContainsNul(Password)),
        ];
        for (json, expected) in table {
            assert_eq!(error(json), expected, "{json}");
        }
        assert_eq!(Secret::from_json(b"\"\xff\"").err(), Some(SecretError::NotJson));
    }

    #[test]
    fn an_error_does_not_tell_the_content() {
        for json in [r#""hunter2""#, r#"{"username":"hunter2"}"#, "hunter2"] {
            let error = error(json);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn size_is_limited() {
        let padded = |len: usize| {
            let mut json = br#"{"username":"a","password":"b"}"#.to_vec();
            json.resize(len, b' ');
            Secret::from_json(&json).err()
        };
        assert_eq!(padded(SECRET_LEN_MAX), None);
        assert_eq!(padded(SECRET_LEN_MAX + 1), Some(SecretError::TooLong { len: 65_537 }));
    }

    /// Deep nesting must not use up the stack.
    #[test]
    fn a_deeply_nested_value_is_refused_or_ignored() {
        for key in ["x", "password"] {
            let json = format!(r#"{{"username":"a","{key}":{}"#, "[".repeat(60_000));
            assert_eq!(error(&json), SecretError::NotJson);
        }
    }

    #[test]
    fn passwords_are_equal_by_content() {
        let password = |text: &str| Password::new(text.to_owned());
        assert!(password("a") == password("a"));
        assert!(password("a") != password("b"));
        assert!(password("a") != password("aa"));
    }

    /// Both impls would apply, and the call be ambiguous, if the type had `Debug`.
    #[test]
    fn secrets_have_no_debug_output() {
        trait NotDebug<A> {
            fn holds() -> bool {
                true
            }
        }
        impl<T> NotDebug<()> for T {}
        struct HasDebug;
        impl<T: fmt::Debug> NotDebug<HasDebug> for T {}
        assert!(<Password as NotDebug<_>>::holds());
        assert!(<Secret as NotDebug<_>>::holds());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(json in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Secret::from_json(&json);
        }

        #[test]
        fn every_secret_survives_json(username in "[^\0]{1,20}", password in "[^\0]{1,40}") {
            let json = serde_json::json!({"port": "5432", "username": username, "password": password});
            let secret = Secret::from_json(json.to_string().as_bytes()).ok().unwrap();
            prop_assert_eq!(&secret.username, &username);
            prop_assert!(secret.password.matches(password.as_bytes()));
        }
    }
}
