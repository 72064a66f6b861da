//! AWS credentials as AWS users have them: keys in the configuration, or the chain of the AWS SDK. Who signs requests to
//! S3, SQS and OpenSearch finds them here.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};

use crate::component::BuildError;
use crate::secret::{Secret, SecretError};

#[cfg(feature = "aws")]
mod chain;

#[cfg(feature = "aws")]
pub(crate) use chain::http_client;

/// What a component's configuration says about who signs. Without keys, the credentials are found as the AWS tools find
/// them: environment, profile files, SSO, web identity, container and instance metadata.
#[derive(Clone, Debug, Default)]
pub(crate) struct AwsLogin {
    /// The table that the keys below stand in, for messages.
    pub table: &'static str,
    /// Profile of the AWS configuration files.
    pub profile: Option<String>,
    /// Access key.
    pub access_key_id: Option<Secret>,
    /// Secret of the access key.
    pub secret_access_key: Option<Secret>,
    /// Session token of temporary keys.
    pub session_token: Option<Secret>,
    /// Role to assume with the credentials found or given.
    pub role_arn: Option<String>,
    /// External id that the role's trust policy asks for.
    pub external_id: Option<String>,
    /// Name of the session in CloudTrail.
    pub role_session_name: Option<String>,
}

impl AwsLogin {
    /// Finds keys that do not go together.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let wrong = |key: &str, message: &str| Err(BuildError::new(&self.key(key), message));
        let keys = self.access_key_id.is_some();
        if keys && self.secret_access_key.is_none() {
            return wrong("secret_access_key", "missing; it belongs to access_key_id");
        }
        if !keys && self.secret_access_key.is_some() {
            return wrong("access_key_id", "missing; it belongs to secret_access_key");
        }
        if !keys && self.session_token.is_some() {
            return wrong("session_token", "needs access_key_id and secret_access_key");
        }
        if keys && self.profile.is_some() {
            return wrong("profile", "cannot be used together with access_key_id; remove one of them");
        }
        if self.role_arn.is_none() && self.external_id.is_some() {
            return wrong("external_id", "needs role_arn");
        }
        if self.role_arn.is_none() && self.role_session_name.is_some() {
            return wrong("role_session_name", "needs role_arn");
        }
        Ok(())
    }

    /// The path of one of the keys.
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.table)
    }
}

/// Keys of the configuration. They are looked up for every request, so that new ones need no restart.
#[derive(Clone, Debug)]
struct Keys {
    table: &'static str,
    id: Secret,
    secret: Secret,
    token: Option<Secret>,
}

impl Keys {
    fn new(login: &AwsLogin) -> Option<Self> {
        Some(Self {
            table: login.table,
            id: login.access_key_id.clone()?,
            secret: login.secret_access_key.clone()?,
            token: login.session_token.clone(),
        })
    }

    /// The keys, or the name of the one that cannot be had and why.
    fn reveal(&self) -> Result<AwsCredential, (String, SecretError)> {
        let reveal = |key: &str, secret: &Secret| {
            secret.reveal().map_err(|error| (format!("{}.{key}", self.table), error))
        };
        Ok(AwsCredential {
            key_id: reveal("access_key_id", &self.id)?,
            secret_key: reveal("secret_access_key", &self.secret)?,
            token: self.token.as_ref().map(|token| reveal("session_token", token)).transpose()?,
        })
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.reveal().map(Arc::new).map_err(|(key, error)| object_store::Error::Unauthenticated {
            path: key,
            source: Box::new(error),
        })
    }
}

/// The credentials that the configuration asks for; `None` leaves it to the S3 client to find some, where this build
/// cannot.
///
/// # Errors
/// [`BuildError`] if a key cannot be had now.
pub(crate) fn provider(login: &AwsLogin, region: &str) -> Result<Option<AwsCredentialProvider>, BuildError> {
    let keys = Keys::new(login);
    if let Some(keys) = &keys {
        keys.reveal().map_err(|(key, error)| BuildError::new(&key, error))?;
    }
    Ok(match keys {
        Some(keys) if login.role_arn.is_none() => Some(Arc::new(keys)),
        keys => chain_provider(login, keys, region)?,
    })
}

#[cfg(feature = "aws")]
fn chain_provider(
    login: &AwsLogin,
    keys: Option<Keys>,
    region: &str,
) -> Result<Option<AwsCredentialProvider>, BuildError> {
    Ok(Some(Arc::new(chain::Chain::new(login, keys, region))))
}

#[cfg(not(feature = "aws"))]
fn chain_provider(
    login: &AwsLogin,
    _keys: Option<Keys>,
    _region: &str,
) -> Result<Option<AwsCredentialProvider>, BuildError> {
    for (key, given) in [("role_arn", &login.role_arn), ("profile", &login.profile)] {
        if given.is_some() {
            let message = "this build lacks the feature `aws`; build with it, or use keys";
            return Err(BuildError::new(&login.key(key), message));
        }
    }
    Ok(None)
}

/// The region that the environment, the profile or the instance name.
#[cfg(feature = "aws")]
pub(crate) fn region(profile: Option<&str>) -> Option<String> {
    chain::region(profile)
}

/// The region that the environment names.
#[cfg(not(feature = "aws"))]
pub(crate) fn region(_profile: Option<&str>) -> Option<String> {
    std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_of_the_configuration_are_looked_up_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "first").unwrap();
        let login = AwsLogin {
            table: "s3",
            access_key_id: Some(Secret::plain("AKIA")),
            secret_access_key: Some(Secret::file(&file)),
            session_token: Some(Secret::plain("token")),
            ..AwsLogin::default()
        };
        let provider = provider(&login, "eu-central-1").unwrap().unwrap();
        let first = provider.get_credential().await.unwrap();
        assert_eq!((first.key_id.as_str(), first.secret_key.as_str()), ("AKIA", "first"));
        assert_eq!(first.token.as_deref(), Some("token"));
        std::fs::write(&file, "the second").unwrap();
        assert_eq!(provider.get_credential().await.unwrap().secret_key, "the second");
        std::fs::remove_file(&file).unwrap();
        let error = provider.get_credential().await.unwrap_err();
        assert!(matches!(error, object_store::Error::Unauthenticated { .. }), "{error}");
        assert!(error.to_string().contains("s3.secret_access_key"), "{error}");
    }

    #[test]
    fn a_key_that_cannot_be_had_is_an_error_at_start() {
        let login = AwsLogin {
            table: "s3",
            access_key_id: Some(Secret::plain("AKIA")),
            secret_access_key: Some(
                serde_json::from_str(r#"{"env":"AUDITFERRY_NO_SUCH_VARIABLE"}"#).unwrap(),
            ),
            ..AwsLogin::default()
        };
        let error = provider(&login, "eu-central-1").unwrap_err();
        assert_eq!(error.key, "s3.secret_access_key");
        assert!(error.message.contains("AUDITFERRY_NO_SUCH_VARIABLE"), "{error}");
    }
}
