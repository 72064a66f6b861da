//! AWS credentials as AWS users have them: keys in the configuration, or the chain of the AWS SDK in front of the
//! S3 client, which itself knows neither profile files nor roles to assume.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};

use super::store::S3Settings;
use crate::component::BuildError;
use crate::secret::{Secret, SecretError};

#[cfg(feature = "aws")]
mod chain;

#[cfg(feature = "aws")]
pub(super) use chain::http_client;

/// Keys of the configuration. They are looked up for every request, so that new ones need no restart.
#[derive(Clone, Debug)]
struct Keys {
    id: Secret,
    secret: Secret,
    token: Option<Secret>,
}

impl Keys {
    fn new(settings: &S3Settings) -> Option<Self> {
        Some(Self {
            id: settings.access_key_id.clone()?,
            secret: settings.secret_access_key.clone()?,
            token: settings.session_token.clone(),
        })
    }

    /// The keys, or the name of the one that cannot be had and why.
    fn reveal(&self) -> Result<AwsCredential, (&'static str, SecretError)> {
        Ok(AwsCredential {
            key_id: self.id.reveal().map_err(|error| ("s3.access_key_id", error))?,
            secret_key: self.secret.reveal().map_err(|error| ("s3.secret_access_key", error))?,
            token: self
                .token
                .as_ref()
                .map(Secret::reveal)
                .transpose()
                .map_err(|error| ("s3.session_token", error))?,
        })
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.reveal().map(Arc::new).map_err(|(key, error)| object_store::Error::Unauthenticated {
            path: key.to_owned(),
            source: Box::new(error),
        })
    }
}

/// The credentials that the settings ask for; `None` leaves it to the S3 client to find some.
///
/// # Errors
/// [`BuildError`] if a key cannot be had now.
pub(super) fn provider(
    settings: &S3Settings,
    region: &str,
) -> Result<Option<AwsCredentialProvider>, BuildError> {
    let keys = Keys::new(settings);
    if let Some(keys) = &keys {
        keys.reveal().map_err(|(key, error)| BuildError::new(key, error))?;
    }
    Ok(match keys {
        Some(keys) if settings.role_arn.is_none() => Some(Arc::new(keys)),
        _ if settings.anonymous => None,
        keys => chain_provider(settings, keys, region)?,
    })
}

#[cfg(feature = "aws")]
fn chain_provider(
    settings: &S3Settings,
    keys: Option<Keys>,
    region: &str,
) -> Result<Option<AwsCredentialProvider>, BuildError> {
    Ok(Some(Arc::new(chain::Chain::new(settings, keys, region))))
}

#[cfg(not(feature = "aws"))]
fn chain_provider(
    settings: &S3Settings,
    _keys: Option<Keys>,
    _region: &str,
) -> Result<Option<AwsCredentialProvider>, BuildError> {
    for (key, given) in [("s3.role_arn", &settings.role_arn), ("s3.profile", &settings.profile)] {
        if given.is_some() {
            return Err(BuildError::new(
                key,
                "this build lacks the feature `aws`; build with it, or use keys",
            ));
        }
    }
    Ok(None)
}

/// The region that the environment, the profile or the instance name.
#[cfg(feature = "aws")]
pub(super) fn region(settings: &S3Settings) -> Option<String> {
    chain::region(settings.profile.as_deref())
}

/// The region that the environment names.
#[cfg(not(feature = "aws"))]
pub(super) fn region(_settings: &S3Settings) -> Option<String> {
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
        let settings = S3Settings {
            access_key_id: Some(Secret::plain("AKIA")),
            secret_access_key: Some(Secret::file(&file)),
            session_token: Some(Secret::plain("token")),
            ..S3Settings::default()
        };
        let provider = provider(&settings, "eu-central-1").unwrap().unwrap();
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
        let settings = S3Settings {
            access_key_id: Some(Secret::plain("AKIA")),
            secret_access_key: Some(
                serde_json::from_str(r#"{"env":"AUDITFERRY_NO_SUCH_VARIABLE"}"#).unwrap(),
            ),
            ..S3Settings::default()
        };
        let error = provider(&settings, "eu-central-1").unwrap_err();
        assert_eq!(error.key, "s3.secret_access_key");
        assert!(error.message.contains("AUDITFERRY_NO_SUCH_VARIABLE"), "{error}");
    }
}
