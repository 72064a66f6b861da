//! Workspace ids of Azure's records, which name nothing but the resource id of their workspace.
//!
//! The Azure Resource Manager knows the id: `GET <resource id>?api-version=…` answers with `properties.workspaceId`. An
//! input asks it for the resources that its records name and hands the answers on in the records' origin; decoding
//! stays pure. Each resource is asked for once; after a refusal an hour passes before the next question, so that a right
//! that is missing costs a request an hour and never stops the flow.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::azure_token::{AzureToken, IdentitySettings, TokenError};
use crate::chunk::Origin;
use crate::component::BuildError;
use crate::http::{Answer, Client, HttpSettings, base_url};

/// The Resource Manager of the public cloud.
pub const RESOURCE_MANAGER: &str = "https://management.azure.com";

/// Version of the API of `Microsoft.Databricks/workspaces`.
const API_VERSION: &str = "2024-05-01";
/// Longest wait for an answer: the records wait as long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After a refusal, the resource counts as unknown for this long.
const REFUSED_FOR: Duration = Duration::from_secs(3600);
/// After a failure that passes, for this long.
const FAILED_FOR: Duration = Duration::from_secs(60);
/// Resources that are remembered; what goes beyond stays unknown. They are named by records, so anybody may invent some.
const MAX_KNOWN: usize = 10_000;

/// What every record has before its resource's id: `"resourceId":"` of a diagnostic setting, `"_ResourceId":"` of Log
/// Analytics, with or without a blank. In a text within the record the quotes would be escaped.
const KEY: &[u8] = b"esourceId\"";

/// Workspace ids by resource id: configured ones, and those that the Resource Manager knows.
#[derive(Debug)]
pub struct Workspaces {
    manager: Option<ResourceManager>,
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Clone, Debug)]
enum Known {
    Id(Arc<str>),
    Unknown { until: Instant },
}

/// How the Resource Manager is asked.
#[derive(Debug)]
struct ResourceManager {
    endpoint: String,
    token: AzureToken,
    client: Client,
}

impl Workspaces {
    /// Knows the configured ids only; resource ids in lower case.
    pub fn configured(ids: HashMap<String, String>) -> Self {
        let known = ids.into_iter().map(|(resource, id)| (resource, Known::Id(id.into()))).collect();
        Self { manager: None, known: Mutex::new(known) }
    }

    /// Asks the Resource Manager at `endpoint` (key `endpoint_key`) for the others, as `identity`, through the proxy of
    /// `http`.
    ///
    /// # Errors
    /// [`BuildError`] naming the key that is missing or wrong.
    pub fn asking(
        mut self,
        endpoint: Option<&str>,
        endpoint_key: &str,
        identity: &IdentitySettings,
        http: &HttpSettings,
    ) -> Result<Self, BuildError> {
        let endpoint = base_url(endpoint_key, endpoint.unwrap_or(RESOURCE_MANAGER), false)?;
        let token = AzureToken::through(identity, &format!("{endpoint}/.default"), http)?;
        let client = Client::new(&http.elsewhere(TIMEOUT))?;
        self.manager = Some(ResourceManager { endpoint, token, client });
        Ok(self)
    }

    /// The id of a workspace by its resource id in lower case, if anybody knows it. Whoever comes while somebody asks
    /// waits for the answer.
    pub async fn id(&self, resource: &str) -> Option<Arc<str>> {
        let mut known = self.known.lock().await;
        let before = known.get(resource).cloned();
        match &before {
            Some(Known::Id(id)) => return Some(Arc::clone(id)),
            Some(Known::Unknown { until }) if Instant::now() < *until => return None,
            _ => {}
        }
        let manager = self.manager.as_ref()?;
        if !is_workspace(resource) || (before.is_none() && known.len() >= MAX_KNOWN) {
            return None;
        }
        let (answer, id) = match manager.ask(resource).await {
            Ok(id) => (Known::Id(Arc::clone(&id)), Some(id)),
            Err(failure) => {
                if before.is_none() {
                    tracing::warn!(
                        resource,
                        "cannot ask the Azure Resource Manager for the id of a workspace: {}; its records go on \
                         without, or with that of their request; workspace_ids can name it",
                        failure.reason
                    );
                }
                (Known::Unknown { until: Instant::now() + failure.lasts }, None)
            }
        };
        known.insert(resource.to_owned(), answer);
        id
    }
}

impl Workspaces {
    /// The origin of records whose path names their resource (in lower case): the workspace is known for all of them.
    pub async fn of_path(&self, origin: Arc<Origin>, resource: &str) -> Arc<Origin> {
        let Some(id) = self.id(resource).await else { return origin };
        let mut origin = Arc::unwrap_or_clone(origin);
        origin.workspace = Some(Arc::clone(&id));
        origin.workspace_ids.insert(resource.to_owned(), id);
        Arc::new(origin)
    }

    /// Adds to an origin the ids of all workspaces that the records in a text name.
    pub async fn of_records(&self, origin: &mut Arc<Origin>, text: &[u8]) {
        let mut last: &[u8] = &[];
        for resource in resources(text) {
            // Mostly all records of an object name the same.
            if resource == last {
                continue;
            }
            last = resource;
            let resource = String::from_utf8_lossy(resource).to_ascii_lowercase();
            if origin.workspace_ids.contains_key(&resource) {
                continue;
            }
            if let Some(id) = self.id(&resource).await {
                let mut known = Origin::clone(origin);
                known.workspace_ids.insert(resource, id);
                *origin = Arc::new(known);
            }
        }
    }
}

/// The resource ids in a text of records.
fn resources(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    memmem::find_iter(text, KEY).filter_map(move |at| {
        let rest = text.get(at + KEY.len()..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', rest)?;
        rest.get(..end).filter(|resource| resource.starts_with(b"/"))
    })
}

/// Why there is no id, and for how long it is not asked for again.
struct Failure {
    reason: String,
    lasts: Duration,
}

impl ResourceManager {
    async fn ask(&self, resource: &str) -> Result<Arc<str>, Failure> {
        let passes = |reason: String| Failure { reason, lasts: FAILED_FOR };
        let lasts = |reason: String| Failure { reason, lasts: REFUSED_FOR };
        let token = self.token.get().await.map_err(|error| match error {
            TokenError::Refused { .. } => lasts(error.to_string()),
            TokenError::Unavailable { .. } => passes(error.to_string()),
        })?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
        let mut bearer = bearer.map_err(|_| lasts("the access token is no text for a header".to_owned()))?;
        bearer.set_sensitive(true);
        let url = format!("{}{resource}?api-version={API_VERSION}", self.endpoint);
        let answer = self.client.get(&url, HeaderMap::from_iter([(AUTHORIZATION, bearer)])).await;
        let answer = answer.map_err(|failure| passes(failure.cause))?;
        match answer.status {
            200 => workspace_id(&answer).ok_or_else(|| lasts("the answer names no workspace id".to_owned())),
            401 | 403 => {
                Err(lasts("it refuses; give the identity the role Reader on the workspace".to_owned()))
            }
            404 => Err(lasts("it knows no such workspace".to_owned())),
            _ => Err(passes(answer.summary())),
        }
    }
}

#[derive(Deserialize)]
struct Workspace {
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    workspace_id: Option<String>,
    workspace_url: Option<String>,
}

/// `properties.workspaceId`, or the digits of `adb-<id>.<n>.azuredatabricks.net`.
fn workspace_id(answer: &Answer) -> Option<Arc<str>> {
    let Workspace { properties } = serde_json::from_slice(&answer.body).ok()?;
    let from_url = || Some(properties.workspace_url?.strip_prefix("adb-")?.split('.').next()?.to_owned());
    let id = properties.workspace_id.or_else(from_url)?;
    (!id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit())).then(|| id.into())
}

/// True for `/subscriptions/…/resourcegroups/…/providers/microsoft.databricks/workspaces/…` in lower case and with
/// nothing in it that would lead a request elsewhere.
fn is_workspace(resource: &str) -> bool {
    let named = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '(' | ')'))
    };
    let parts: Vec<&str> = resource.split('/').collect();
    let [
        "",
        "subscriptions",
        subscription,
        "resourcegroups",
        group,
        "providers",
        "microsoft.databricks",
        "workspaces",
        name,
    ] = parts.as_slice()
    else {
        return false;
    };
    [subscription, group, name].into_iter().all(named)
}

#[cfg(test)]
mod tests;
