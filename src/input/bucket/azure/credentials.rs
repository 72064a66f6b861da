//! What requests to a storage account are signed with: looked up for each of them, so that a new one needs no restart.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::azure::{AzureAccessKey, AzureCredential, split_sas};

use super::{AzureSettings, ConnectionString, identity};
use crate::azure_token::{AzureToken, TokenError};
use crate::component::BuildError;
use crate::http::HttpSettings;
use crate::secret::Secret;

/// The scope of tokens for storage, in every cloud.
const SCOPE: &str = "https://storage.azure.com/.default";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Credentials of a storage account.
#[derive(Debug)]
pub(super) enum Credentials {
    /// A secret; `key` is the key of the configuration or the variable that the user set.
    Secret {
        kind: Kind,
        secret: Secret,
        key: &'static str,
    },
    Identity(Box<AzureToken>),
}

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AccessKey,
    Sas,
    ConnectionString,
}

/// Variables that hold a secret, the first one first.
const VARIABLES: [(&str, Kind); 5] = [
    ("AZURE_STORAGE_CONNECTION_STRING", Kind::ConnectionString),
    ("AZURE_STORAGE_ACCOUNT_KEY", Kind::AccessKey),
    ("AZURE_STORAGE_ACCESS_KEY", Kind::AccessKey),
    ("AZURE_STORAGE_SAS_TOKEN", Kind::Sas),
    ("AZURE_STORAGE_SAS_KEY", Kind::Sas),
];

impl Credentials {
    /// Those of the configuration, else keys of the environment, else an identity.
    pub(super) fn choose(
        settings: &AzureSettings,
        http: &HttpSettings,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        let configured = [
            (Kind::AccessKey, &settings.access_key, "azure.access_key"),
            (Kind::Sas, &settings.sas_token, "azure.sas_token"),
            (Kind::ConnectionString, &settings.connection_string, "azure.connection_string"),
        ];
        for (kind, secret, key) in configured {
            if let Some(secret) = secret {
                return Self::Secret { kind, secret: secret.clone(), key }.checked();
            }
        }
        let named = settings.client_secret.is_some() || settings.client_certificate_file.is_some();
        for (key, kind) in VARIABLES.into_iter().filter(|_| !named) {
            if let Some(value) = environment(key) {
                return Self::Secret { kind, secret: Secret::plain(&value), key }.checked();
            }
        }
        Ok(Self::Identity(Box::new(AzureToken::through(&identity(settings), SCOPE, http)?)))
    }

    /// The key or variable that the user set; empty for an identity.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Secret { key, .. } => key,
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
        let Self::Secret { kind: Kind::ConnectionString, secret, key } = self else { return Ok(None) };
        let text = secret.reveal().map_err(|error| BuildError::new(key, error))?;
        ConnectionString::parse(&text).map(Some).map_err(|error| BuildError::new(key, error))
    }

    fn checked(self) -> Result<Self, BuildError> {
        self.reveal().map_err(|error| BuildError::new(self.key(), error))?;
        Ok(self)
    }

    /// The secret as it stands now; `None` for an identity.
    fn reveal(&self) -> Result<Option<AzureCredential>, BoxError> {
        let Self::Secret { kind, secret, .. } = self else { return Ok(None) };
        let text = secret.reveal()?;
        let access = |key: &str| Ok(Some(AzureCredential::AccessKey(AzureAccessKey::try_new(key)?)));
        let sas = |token: &str| Ok(Some(AzureCredential::SASToken(split_sas(token)?)));
        match kind {
            Kind::AccessKey => access(&text),
            Kind::Sas => sas(&text),
            Kind::ConnectionString => {
                let parsed = ConnectionString::parse(&text)?;
                match (parsed.key, parsed.sas) {
                    (Some(key), _) => access(&key),
                    (None, token) => sas(&token.unwrap_or_default()),
                }
            }
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
