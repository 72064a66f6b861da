//! Azure Blob Storage: one container, or several of an account.
//!
//! `object_store` knows one container and cannot list an account's. Here its clients, one a container, are put
//! together to one store whose keys begin with the container (`account`): the rest of the input sees folders, as it
//! does where a directory holds the containers. Errors become what a user can act on (`refusal`).

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureCredentialProvider, MicrosoftAzureBuilder};

use super::azure_path::Containers;
use super::config::Config;
use super::store::{AzureSettings, Connector, StoreSettings, client_options, endpoint_url, retries};
use crate::azure_token::IdentitySettings;
use crate::azure_workspace::Workspaces;
use crate::component::BuildError;
use crate::http::{Client, HttpSettings};

mod account;
mod connection_string;
mod credentials;
mod refusal;

#[cfg(any(test, fuzzing))]
pub(super) use account::names as container_names;

use account::{AzureStore, Scope};
use connection_string::ConnectionString;
use credentials::Credentials;
pub(super) use refusal::{Refusal, refusal};

/// How a storage account is reached.
#[derive(Debug)]
struct Connection {
    account: String,
    /// Without a slash at its end.
    endpoint: String,
    allow_http: bool,
    credentials: Arc<Credentials>,
    http: HttpSettings,
    /// For the one request that `object_store` does not make.
    client: Client,
}

/// One container by its name.
///
/// # Errors
/// [`BuildError`] naming the key below `azure`.
pub(super) fn container(name: &str, settings: &StoreSettings) -> Result<Arc<dyn ObjectStore>, BuildError> {
    let connection = Connection::new(None, settings)?;
    let scope = Scope::One { name: name.to_owned(), store: connection.container(name)? };
    Ok(Arc::new(AzureStore::new(connection, scope)))
}

/// The containers of an account, given what stands behind `az://`.
///
/// # Errors
/// [`BuildError`] naming the key: `url`, `containers` or one below `azure`.
pub(super) fn account(
    rest: &str,
    settings: &StoreSettings,
    containers: &Containers,
) -> Result<Arc<dyn ObjectStore>, BuildError> {
    let account = rest.trim_end_matches('/');
    let prefix = containers.layout.container_prefix();
    if account.starts_with(prefix) || account.contains('/') {
        let message = format!(
            "`az://{rest}` goes beyond the account; write az://<account>, and containers = [\"{prefix}…\"] to read only some"
        );
        return Err(BuildError::new("url", message));
    }
    let connection = Connection::new(Some(account), settings)?;
    for name in &containers.named {
        let valid = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        if !valid || name.is_empty() {
            return Err(BuildError::new("containers", format!("`{name}` cannot be the name of a container")));
        }
    }
    let scope = Scope::Several { containers: containers.clone(), stores: std::sync::Mutex::default() };
    Ok(Arc::new(AzureStore::new(connection, scope)))
}

impl Connection {
    fn new(account: Option<&str>, settings: &StoreSettings) -> Result<Self, BuildError> {
        let StoreSettings { azure: settings, http, .. } = settings;
        settings.check()?;
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let credentials = Credentials::choose(settings, http, &environment)?;
        let given = credentials.connection_string()?;
        let known = [
            ("azure.account", settings.account.clone()),
            ("azure.connection_string", given.as_ref().and_then(|given| given.account.clone())),
        ];
        for (key, name) in &known {
            if let (Some(account), Some(name)) = (account, name)
                && account != name
            {
                let message =
                    format!("is of the account `{name}`, but `url` names `{account}`; remove one of them");
                return Err(BuildError::new(key, message));
            }
        }
        let account = account
            .map(str::to_owned)
            .or_else(|| known.into_iter().find_map(|(_, name)| name))
            .or_else(|| environment("AZURE_STORAGE_ACCOUNT_NAME"));
        let Some(account) = account else {
            let message = "missing; name the storage account of the container";
            return Err(BuildError::new("azure.account", message));
        };
        let valid = (3..=24).contains(&account.len()) && account.bytes().all(|c| c.is_ascii_alphanumeric());
        let configured = settings
            .endpoint
            .clone()
            .or_else(|| given.and_then(|given| given.blob_endpoint(&account)))
            .or_else(|| environment("AZURE_STORAGE_ENDPOINT"));
        if !valid && configured.is_none() {
            let message =
                format!("`{account}` cannot be the name of a storage account: 3 to 24 letters and digits");
            return Err(BuildError::new("azure.account", message));
        }
        let endpoint = configured.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let endpoint = endpoint_url("azure", &endpoint, settings.allow_http)?;
        Ok(Self {
            account,
            endpoint: endpoint.as_str().trim_end_matches('/').to_owned(),
            allow_http: settings.allow_http,
            credentials: Arc::new(credentials),
            client: Client::new(http)?,
            http: http.clone(),
        })
    }

    fn container(&self, name: &str) -> Result<Arc<dyn ObjectStore>, BuildError> {
        let store = MicrosoftAzureBuilder::new()
            .with_container_name(name)
            .with_account(&self.account)
            .with_endpoint(self.endpoint.clone())
            .with_credentials(Arc::clone(&self.credentials) as AzureCredentialProvider)
            .with_client_options(client_options(self.allow_http))
            .with_http_connector(Connector(self.http.clone()))
            .with_retry(retries())
            .build();
        Ok(Arc::new(store.map_err(|error| BuildError::new("azure", error))?))
    }
}

/// The identity that the settings name.
fn identity(settings: &AzureSettings) -> IdentitySettings {
    IdentitySettings {
        table: "azure",
        client_id: settings.client_id.clone(),
        tenant_id: settings.tenant_id.clone(),
        client_secret: settings.client_secret.clone(),
        client_certificate_file: settings.client_certificate_file.clone(),
        authority_host: settings.authority_host.clone(),
    }
}

/// The workspace ids of Azure's records: configured ones, and those that the Resource Manager knows where the
/// configuration or an identity allows to ask it. `None` where no record of Azure is expected.
///
/// # Errors
/// [`BuildError`] naming the key below `azure`.
pub(super) fn workspaces(config: &Config) -> Result<Option<Arc<Workspaces>>, BuildError> {
    let (settings, http) = (&config.azure, config.http());
    let layout = config.layout.azure().is_some();
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let by_identity = || {
        let chosen = Credentials::choose(settings, &http, &environment);
        config.url.starts_with("az://") && matches!(chosen, Ok(Credentials::Identity(_)))
    };
    let asks = settings.resolve_workspace_ids.unwrap_or_else(|| layout && by_identity());
    if !layout && !asks {
        return Ok(None);
    }
    let workspaces = Workspaces::configured(config.resources());
    if !asks {
        return Ok(Some(Arc::new(workspaces)));
    }
    let endpoint = settings.resource_manager_endpoint.as_deref();
    let workspaces =
        workspaces.asking(endpoint, "azure.resource_manager_endpoint", &identity(settings), &http)?;
    Ok(Some(Arc::new(workspaces)))
}

#[cfg(test)]
mod tests;
