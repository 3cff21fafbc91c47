//! Secrets in AWS Secrets Manager. Region, endpoint and credentials come from the AWS SDK's standard chain.
//!
//! Nothing is looked up before the first secret is read: a configuration of files makes no AWS call.
//!
//! Source: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html>

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Builder;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::{
    GetSecretValueError, GetSecretValueOutput,
};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::error::{SourceError, printable};
use super::reader::{SecretBytes, SecretValue, Stage};

/// Of a TCP connection, the TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Of one try. An endpoint that accepts and stays silent leaves time for another one.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
/// Of a read with all its tries.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Tries of one read; the schedule of [`super::source`] adds its own back-off between reads.
const ATTEMPTS_MAX: u32 = 3;
/// The AWS SDK's standard chain, or what replaces it. Looked up when it is first needed.
pub struct Chain {
    given: Option<SdkConfig>,
    standard: OnceCell<SdkConfig>,
}

impl Chain {
    /// `given` replaces the standard chain.
    pub fn new(given: Option<SdkConfig>) -> Arc<Self> {
        Arc::new(Self { given, standard: OnceCell::new() })
    }

    /// Region, endpoint and credentials.
    pub async fn config(&self) -> &SdkConfig {
        match &self.given {
            Some(given) => given,
            None => self.standard.get_or_init(standard_chain).await,
        }
    }
}

/// A client for each region in which there is a secret.
pub struct SecretsManager {
    chain: Arc<Chain>,
    clients: Mutex<HashMap<String, Client>>,
}

impl SecretsManager {
    /// Makes no call and no connection.
    pub fn new(chain: Arc<Chain>) -> Self {
        Self { chain, clients: Mutex::new(HashMap::new()) }
    }

    /// Reads a version of a secret, which is given by ARN or by name.
    ///
    /// # Errors
    /// Each names what is missing; none holds anything of the secret.
    pub async fn read(&self, secret_id: &str, stage: Stage) -> Result<SecretValue, SourceError> {
        let answer = self
            .client_for(secret_id)
            .await?
            .get_secret_value()
            .secret_id(secret_id)
            .version_stage(label(stage))
            .send()
            .await
            .map_err(|error| classify(&error))?;
        // A time before 1970 is none.
        let created = answer.created_date.and_then(|date| SystemTime::try_from(date).ok());
        Ok(SecretValue { bytes: content(answer), created })
    }

    /// Whether nothing was looked up so far.
    #[cfg(test)]
    pub fn is_untouched(&self) -> bool {
        !self.chain.standard.initialized() && self.clients.lock().is_empty()
    }

    async fn client_for(&self, secret_id: &str) -> Result<Client, SourceError> {
        let chain = self.chain.config().await;
        let region = region_of(secret_id).map(|region| Region::new(region.to_owned()));
        let Some(region) = region.or_else(|| chain.region().cloned()) else {
            return Err(SourceError::NoRegion);
        };
        let mut clients = self.clients.lock();
        let client =
            clients.entry(region.as_ref().to_owned()).or_insert_with(|| new_client(chain, region));
        Ok(client.clone())
    }
}

fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::Current => "AWSCURRENT",
        Stage::Previous => "AWSPREVIOUS",
        Stage::Pending => "AWSPENDING",
    }
}

async fn standard_chain() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).load().await
}

/// Clients of one chain share its AWS credentials and their cache.
fn new_client(chain: &SdkConfig, region: Region) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build();
    let config = Builder::from(chain)
        .region(region)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
        .build();
    Client::from_conf(config)
}

/// The region in `arn:<partition>:secretsmanager:<region>:<account>:secret:<name>`; `None` for a name.
fn region_of(secret_id: &str) -> Option<&str> {
    secret_id.strip_prefix("arn:")?.split(':').nth(2).filter(|region| !region.is_empty())
}

/// The text, or the same as binary: Secrets Manager takes either and leaves the other out.
fn content(answer: GetSecretValueOutput) -> SecretBytes {
    let bytes = match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(binary)) => binary.into_inner(),
        (None, None) => Vec::new(),
    };
    Zeroizing::new(bytes)
}

/// Takes from the SDK's error what an operator needs.
///
/// It is not printed with its whole chain: below it may be the raw answer, and what a credential
/// process wrote to its standard error.
fn classify(error: &SdkError<GetSecretValueError>) -> SourceError {
    match error {
        SdkError::ServiceError(answered) => {
            let (status, service) = (answered.raw().status().as_u16(), answered.err());
            match service.code() {
                Some(code) => SourceError::from_service(code, service.message().unwrap_or("")),
                None => SourceError::from_status(status),
            }
        }
        SdkError::TimeoutError(_) => SourceError::TimedOut,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => SourceError::TimedOut,
        SdkError::DispatchFailure(failure) if failure.is_io() => {
            SourceError::Unreachable { detail: innermost(failure.as_connector_error()) }
        }
        SdkError::DispatchFailure(failure) => {
            SourceError::NoAwsCredentials { detail: cause(failure.as_connector_error()) }
        }
        SdkError::ConstructionFailure(_) => {
            SourceError::NoAwsCredentials { detail: "the request could not be made".to_owned() }
        }
        // ResponseError, and what a later SDK adds.
        _ => SourceError::Garbled,
    }
}

/// The text of the error below, and of none further down.
fn cause(error: Option<&(impl Error + 'static)>) -> String {
    error.and_then(Error::source).map_or_else(String::new, |cause| printable(&cause.to_string()))
}

/// The text of the last error in the chain, which is the operating system's: "connection refused".
fn innermost(error: Option<&(impl Error + 'static)>) -> String {
    /// A chain longer than this is not one of causes.
    const CHAIN_MAX: usize = 16;
    let mut deepest = error.and_then(Error::source);
    for _ in 0..CHAIN_MAX {
        match deepest.and_then(Error::source) {
            Some(next) => deepest = Some(next),
            None => break,
        }
    }
    deepest.map_or_else(String::new, |cause| printable(&cause.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_comes_from_the_arn() {
        let cases = [
            ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:app-AbCdEf", Some("eu-west-1")),
            ("arn:aws-cn:secretsmanager:cn-north-1:1:secret:app-AbCdEf", Some("cn-north-1")),
            ("arn:aws:secretsmanager::1:secret:app", None),
            ("arn:aws", None),
            ("prod/app", None),
            ("", None),
        ];
        for (secret_id, region) in cases {
            assert_eq!(region_of(secret_id), region, "{secret_id}");
        }
    }

    #[test]
    fn text_and_binary_are_read_alike() {
        use aws_sdk_secretsmanager::primitives::Blob;
        let text = GetSecretValueOutput::builder().secret_string("{}").build();
        assert_eq!(*content(text), b"{}");
        let binary = GetSecretValueOutput::builder().secret_binary(Blob::new("{}")).build();
        assert_eq!(*content(binary), b"{}");
        assert!(content(GetSecretValueOutput::builder().build()).is_empty());
    }
}
