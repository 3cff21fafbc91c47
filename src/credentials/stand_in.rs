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
