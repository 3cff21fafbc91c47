//! Why a secret cannot be used: what happened and what is missing, never the content of the secret.
//!
//! Source: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>

use std::io;

use crate::auth::secret::{SECRET_LEN_MAX, SecretError};

/// Why a source could not be read, or not be used.
///
/// Its texts are for the operator: they may name files, ARNs and permissions, so they are logged and
/// shown on the admin side, and never sent to a client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The operating system refused the file.
    #[error("the file cannot be read: {0}")]
    File(io::ErrorKind),
    /// A directory, a pipe or a device; reading one could wait for ever.
    #[error("not a regular file")]
    NotRegularFile,
    /// More than [`SECRET_LEN_MAX`].
    #[error("longer than {SECRET_LEN_MAX} bytes")]
    TooLarge,
    /// The bytes came, but are no secret for a database user.
    #[error("{0}")]
    Content(#[from] SecretError),
    /// An earlier source of the configuration is for the same user.
    #[error("the user \"{username}\" has its secret from {first} already, this one is not used")]
    DuplicateUser {
        /// The user that both sources name.
        username: String,
        /// The source in use.
        first: String,
    },
    /// `ResourceNotFoundException`.
    #[error(
        "Secrets Manager has no such secret, or no value of it labelled AWSCURRENT \
         (ResourceNotFoundException): check name, account and region"
    )]
    NotFound,
    /// The role in use lacks a permission.
    #[error("the permission {permission} is missing: {detail}")]
    Denied {
        /// The IAM action to allow.
        permission: &'static str,
        /// What the service said.
        detail: String,
    },
    /// The secret is marked for deletion, or another state that forbids reading it.
    #[error("Secrets Manager refuses to hand it out ({code}): {detail}")]
    Refused {
        /// The service's error code.
        code: String,
        /// What the service said.
        detail: String,
    },
    /// AWS does not accept who we are, or the time we believe it is.
    #[error("AWS does not accept this machine's AWS credentials or clock ({code}): {detail}")]
    Identity {
        /// The service's error code.
        code: String,
        /// What the service said.
        detail: String,
    },
    /// The standard chain found no AWS credentials, or the request could not be made from what it found.
    #[error("no usable AWS credentials (task role, instance profile or environment): {detail}")]
    NoAwsCredentials {
        /// What the AWS SDK said.
        detail: String,
    },
    /// The secret is given by name and nothing says where it is.
    #[error("no AWS region is known: give the secret's full ARN or set AWS_REGION")]
    NoRegion,
    /// Too many requests.
    #[error("Secrets Manager throttles the requests ({code})")]
    Throttled {
        /// The service's error code.
        code: String,
    },
    /// An internal error of the service.
    #[error("Secrets Manager is not available ({code})")]
    Unavailable {
        /// The service's error code or HTTP status.
        code: String,
    },
    /// No connection to the service.
    #[error("Secrets Manager cannot be reached: {detail}")]
    Unreachable {
        /// What the AWS SDK said.
        detail: String,
    },
    /// The service, or the disk, did not answer in time.
    #[error("not read in time")]
    TimedOut,
    /// The service answered with something else than a secret.
    #[error("the answer of Secrets Manager cannot be understood")]
    Garbled,
    /// The process is stopping, or the derivation failed inside.
    #[error("the keys could not be derived from it")]
    Derivation,
}

impl SourceError {
    /// The kind of error, as a label value for metrics.
    #[must_use]
    pub fn as_label(&self) -> &'static str {
        match self {
            Self::File(_) | Self::NotRegularFile => "file",
            Self::TooLarge | Self::Content(_) => "content",
            Self::DuplicateUser { .. } => "duplicate_user",
            Self::NotFound => "not_found",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
            Self::Identity { .. } | Self::NoAwsCredentials { .. } => "identity",
            Self::NoRegion => "no_region",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable { .. } | Self::Unreachable { .. } => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Garbled => "garbled",
            Self::Derivation => "derivation",
        }
    }

    /// From the error code and message of an answer of the service.
    pub(super) fn from_service(code: &str, message: &str) -> Self {
        let (code, detail) = (printable(code), printable(message));
        match code.as_str() {
            "ResourceNotFoundException" => Self::NotFound,
            // Secrets Manager decrypts in the caller's name, and reports what KMS said as its own refusal.
            "AccessDeniedException" if message.contains("KMS") || message.contains("kms:") => {
                Self::Denied { permission: "kms:Decrypt", detail }
            }
            "DecryptionFailure" => Self::Denied { permission: "kms:Decrypt", detail },
            "AccessDeniedException" | "AccessDenied" => {
                Self::Denied { permission: "secretsmanager:GetSecretValue", detail }
            }
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "SlowDown" => Self::Throttled { code },
            "InternalServiceError"
            | "InternalServiceErrorException"
            | "InternalFailure"
            | "InternalServerError"
            | "ServiceUnavailable"
            | "ServiceUnavailableException" => Self::Unavailable { code },
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "RequestExpired"
            | "RequestTimeTooSkewed"
            | "OptInRequired" => Self::Identity { code, detail },
            _ => Self::Refused { code, detail },
        }
    }

    /// From the HTTP status of an answer without an error code: one by a proxy or a load balancer, or a
    /// success that holds no secret.
    pub(super) fn from_status(status: u16) -> Self {
        let code = format!("HTTP status {status}");
        match status {
            200..=299 => Self::Garbled,
            429 => Self::Throttled { code },
            500..=599 => Self::Unavailable { code },
            _ => Self::Refused { code, detail: "no reason given".to_owned() },
        }
    }
}

/// One source that is not as it should be, for the log, `pgweir check` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {error}")]
pub struct CredentialProblem {
    /// The file's path or the secret's ARN.
    pub origin: String,
    /// What is wrong with it.
    pub error: SourceError,
    /// Whether its user cannot log in; if not, the last good value is still in use.
    pub user_disabled: bool,
}

/// Why no credentials could be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is a problem with every source.
    #[error("{}", in_words(problems))]
    NoneUsable {
        /// One for each source.
        problems: Vec<CredentialProblem>,
    },
    /// The system's random source failed.
    #[error("no random bytes to be had")]
    NoRandomness,
}

fn in_words(problems: &[CredentialProblem]) -> String {
    /// Most that are told; the others are in the log.
    const TOLD_MAX: usize = 10;
    let told: Vec<_> = problems.iter().take(TOLD_MAX).map(ToString::to_string).collect();
    let more = problems.len().saturating_sub(TOLD_MAX);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    told.join("; ") + &more
}

/// A foreign text made fit for one line of a log.
pub(super) fn printable(text: &str) -> String {
    /// In characters; the longest texts name a role, an action and a secret.
    const CHARACTERS_MAX: usize = 400;
    text.chars().take(CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_permission_that_is_missing() {
        let cases = [
            (
                "AccessDeniedException",
                "User: arn:aws:sts::1:assumed-role/r is not authorized to perform: secretsmanager:GetSecretValue",
                "secretsmanager:GetSecretValue",
            ),
            ("AccessDeniedException", "Access to KMS is not allowed", "kms:Decrypt"),
            ("DecryptionFailure", "can't decrypt the protected secret text", "kms:Decrypt"),
        ];
        for (code, message, expected) in cases {
            let error = SourceError::from_service(code, message);
            assert!(
                matches!(error, SourceError::Denied { permission, .. } if permission == expected),
                "{code}, {message}: {error:?}"
            );
            assert!(error.to_string().contains(expected));
        }
    }

    #[test]
    fn codes_of_the_service_become_kinds() {
        let cases = [
            ("ResourceNotFoundException", "not_found"),
            ("ThrottlingException", "throttled"),
            ("InternalServiceError", "unavailable"),
            ("ExpiredTokenException", "identity"),
            ("InvalidSignatureException", "identity"),
            ("InvalidRequestException", "refused"),
            ("SomethingNew", "refused"),
        ];
        for (code, label) in cases {
            assert_eq!(SourceError::from_service(code, "text").as_label(), label, "{code}");
        }
    }

    #[test]
    fn a_foreign_text_cannot_forge_log_lines_or_fill_them() {
        let text = printable(&format!("a\nb\u{1b}[0m{}", "x".repeat(10_000)));
        assert!(text.starts_with("a b [0m"));
        assert_eq!(text.chars().count(), 400);
    }
}
