//! Stand-ins until the layers below are there.
#![allow(missing_docs)]
pub mod config {
    use std::path::PathBuf;
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Auth {
        pub source: SecretSource,
        pub client_password_auth_type: ClientPasswordAuthType,
    }
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum SecretSource {
        File(PathBuf),
        SecretsManager { arn: String },
    }
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ClientPasswordAuthType {
        ScramSha256,
        Md5,
    }
}
pub mod auth {
    #[derive(Clone, PartialEq, Eq)]
    pub struct Password(Vec<u8>);
    impl Password {
        pub fn as_bytes(&self) -> &[u8] {
            &self.0
        }
    }
    pub struct Secret {
        pub username: String,
        pub password: Password,
    }
    #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
    pub enum SecretError {
        #[error("not JSON")]
        NotJson,
        #[error("no username or password")]
        Missing,
    }
    impl Secret {
        pub fn from_json(bytes: &[u8]) -> Result<Self, SecretError> {
            let v: serde_json::Value =
                serde_json::from_slice(bytes).map_err(|_| SecretError::NotJson)?;
            let get = |k: &str| {
                v.get(k)
                    .and_then(|v| v.as_str())
                    .filter(|s| !s.is_empty())
                    .map(str::to_owned)
                    .ok_or(SecretError::Missing)
            };
            Ok(Self {
                username: get("username")?,
                password: Password(get("password")?.into_bytes()),
            })
        }
    }
    #[derive(Clone, PartialEq, Eq)]
    pub struct ScramVerifier {
        pub iterations: u32,
        pub salt: Vec<u8>,
        pub key: Vec<u8>,
    }
    fn pbkdf2(p: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut out = vec![0; 32];
        if let Some(n) = std::num::NonZeroU32::new(iterations) {
            aws_lc_rs::pbkdf2::derive(aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256, n, salt, p, &mut out);
        }
        out
    }
    impl ScramVerifier {
        pub fn derive(p: &Password, salt: &[u8], iterations: u32) -> Self {
            Self {
                iterations,
                salt: salt.to_vec(),
                key: pbkdf2(p.as_bytes(), salt, iterations),
            }
        }
        pub fn mock(username: &str, key: &[u8; 32], iterations: u32) -> Self {
            Self {
                iterations,
                salt: [username.as_bytes(), key].concat(),
                key: key.to_vec(),
            }
        }
    }
    #[derive(Clone, PartialEq, Eq)]
    pub struct ScramKeys(Vec<u8>);
    impl ScramKeys {
        pub fn derive(p: &Password, salt: &[u8], iterations: u32) -> Self {
            Self(pbkdf2(p.as_bytes(), salt, iterations))
        }
    }
}
