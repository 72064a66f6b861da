//! What requests to a storage account are signed with: looked up for each of them, so that a new one needs no restart.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::azure::{AzureAccessKey, AzureCredential, split_sas};

use super::{AzureSettings, ConnectionString, identity};
use crate::azure_token::{AzureToken, TokenError};
use crate::component::BuildError;
use crate::secret::Secret;

/// The scope of tokens for storage, in every cloud.
const SCOPE: &str = "https://storage.azure.com/.default";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Credentials of a storage account.
#[derive(Debug)]
pub(super) enum Credentials {
    Access(Secret, &'static str),
    Sas(Secret, &'static str),
    ConnectionString(Secret, &'static str),
    Identity(AzureToken),
}

impl Credentials {
    /// Those of the configuration, else keys of the environment, else an identity.
    pub(super) fn choose(
        settings: &AzureSettings,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        if let Some(secret) = &settings.access_key {
            return Self::Access(secret.clone(), "azure.access_key").checked();
        }
        if let Some(secret) = &settings.sas_token {
            return Self::Sas(secret.clone(), "azure.sas_token").checked();
        }
        if let Some(secret) = &settings.connection_string {
            return Self::ConnectionString(secret.clone(), "azure.connection_string").checked();
        }
        let named = settings.client_secret.is_some() || settings.client_certificate_file.is_some();
        let kinds: [(&'static str, fn(Secret, &'static str) -> Self); 5] = [
            ("AZURE_STORAGE_CONNECTION_STRING", Self::ConnectionString),
            ("AZURE_STORAGE_ACCOUNT_KEY", Self::Access),
            ("AZURE_STORAGE_ACCESS_KEY", Self::Access),
            ("AZURE_STORAGE_SAS_TOKEN", Self::Sas),
            ("AZURE_STORAGE_SAS_KEY", Self::Sas),
        ];
        for (name, kind) in kinds.into_iter().filter(|_| !named) {
            if let Some(value) = environment(name) {
                return kind(Secret::plain(&value), name).checked();
            }
        }
        Ok(Self::Identity(AzureToken::new(&identity(settings), SCOPE)?))
    }

    /// The key or variable that the user set; empty for an identity.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Access(_, key) | Self::Sas(_, key) | Self::ConnectionString(_, key) => key,
            Self::Identity(_) => "",
        }
    }

    /// The time at which a shared access signature ends, as it says itself.
    pub(super) fn sas_end(&self) -> Option<String> {
        match self.reveal().ok()?? {
            AzureCredential::SASToken(pairs) => {
                pairs.into_iter().find(|(name, _)| name == "se").map(|(_, end)| end)
            }
            _ => None,
        }
    }

    /// What the connection string says of the account, if there is one.
    pub(super) fn connection_string(&self) -> Result<Option<ConnectionString>, BuildError> {
        let Self::ConnectionString(secret, key) = self else { return Ok(None) };
        let text = secret.reveal().map_err(|error| BuildError::new(key, error))?;
        ConnectionString::parse(&text).map(Some).map_err(|error| BuildError::new(key, error))
    }

    fn checked(self) -> Result<Self, BuildError> {
        self.reveal().map_err(|error| BuildError::new(self.key(), error))?;
        Ok(self)
    }

    /// The secret as it stands now; `None` for an identity.
    fn reveal(&self) -> Result<Option<AzureCredential>, BoxError> {
        let access = |key: &str| Ok(Some(AzureCredential::AccessKey(AzureAccessKey::try_new(key)?)));
        let sas = |token: &str| Ok(Some(AzureCredential::SASToken(split_sas(token)?)));
        match self {
            Self::Access(secret, _) => access(&secret.reveal()?),
            Self::Sas(secret, _) => sas(&secret.reveal()?),
            Self::ConnectionString(secret, _) => {
                let parsed = ConnectionString::parse(&secret.reveal()?)?;
                match (parsed.key, parsed.sas) {
                    (Some(key), _) => access(&key),
                    (None, token) => sas(&token.unwrap_or_default()),
                }
            }
            Self::Identity(_) => Ok(None),
        }
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        let path = self.key().to_owned();
        if let Self::Identity(token) = self {
            return match token.get().await {
                Ok(token) => Ok(Arc::new(AzureCredential::BearerToken(token.reveal().to_owned()))),
                Err(error @ TokenError::Unavailable { .. }) => {
                    Err(object_store::Error::Generic { store: "MicrosoftAzure", source: Box::new(error) })
                }
                Err(error) => Err(object_store::Error::Unauthenticated { path, source: Box::new(error) }),
            };
        }
        match self.reveal() {
            Ok(Some(credential)) => Ok(Arc::new(credential)),
            Ok(None) => Err(object_store::Error::Unauthenticated { path, source: "no credentials".into() }),
            Err(source) => Err(object_store::Error::Unauthenticated { path, source }),
        }
    }
}
