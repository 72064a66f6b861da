//! One container, or several as folders of one store.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::azure::AzureAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::path::{Path, PathPart};
use object_store::{
    CopyOptions, CredentialProvider, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde::Deserialize;
use url::Url;

use super::refusal::explain;
use super::{Connection, Containers};
use crate::time::{Date, Millis};

/// Most pages of containers that are asked for, of up to 5,000 each.
const MAX_PAGES: usize = 20;

/// Which containers a store has.
#[derive(Debug)]
pub(super) enum Scope {
    /// One; keys are those within it.
    One { name: String, store: Arc<dyn ObjectStore> },
    /// Several; keys begin with the container's name. Clients are made as they are needed.
    Several { containers: Containers, stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>> },
}

/// Reads blobs of a storage account.
#[derive(Debug)]
pub(super) struct AzureStore {
    connection: Arc<Connection>,
    scope: Scope,
}

/// A container and a path within it.
struct Within {
    name: String,
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// The keys of the store begin with the container's name.
    outer: bool,
    connection: Arc<Connection>,
}

impl Within {
    fn key(&self, path: &Path) -> Path {
        if !self.outer {
            return path.clone();
        }
        Path::from_iter(std::iter::once(PathPart::from(self.name.as_str())).chain(path.parts()))
    }

    fn meta(&self, meta: ObjectMeta) -> ObjectMeta {
        ObjectMeta { location: self.key(&meta.location), ..meta }
    }

    fn explain(&self, error: Error) -> Error {
        explain(error, &self.name, &self.connection.credentials, now())
    }
}

impl AzureStore {
    pub(super) fn new(connection: Connection, scope: Scope) -> Self {
        Self { connection: Arc::new(connection), scope }
    }

    /// Where a key lies; `None` for the account itself.
    fn within(&self, location: &Path) -> Result<Option<Within>> {
        let connection = Arc::clone(&self.connection);
        let (containers, stores) = match &self.scope {
            Scope::One { name, store } => {
                let (name, store) = (name.clone(), Arc::clone(store));
                return Ok(Some(Within { name, store, path: location.clone(), outer: false, connection }));
            }
            Scope::Several { containers, stores } => (containers, stores),
        };
        let mut parts = location.parts();
        let Some(name) = parts.next() else { return Ok(None) };
        let name = name.as_ref().to_owned();
        if !containers.wants(&name) {
            let source = "the container is none of those that are read".into();
            return Err(Error::NotFound { path: location.to_string(), source });
        }
        let mut stores = stores.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match stores.get(&name) {
            Some(store) => Arc::clone(store),
            None => {
                let store = self.connection.container(&name).map_err(|error| generic(error.to_string()))?;
                stores.insert(name.clone(), Arc::clone(&store));
                store
            }
        };
        Ok(Some(Within { name, store, path: Path::from_iter(parts), outer: true, connection }))
    }

    /// The names of the containers: configured ones as they are, else those that the account lists.
    async fn containers(&self, containers: &Containers) -> Result<Vec<String>> {
        if !containers.named.is_empty() {
            return Ok(containers.named.clone());
        }
        let (mut names, mut marker) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let page = self.page(containers.layout.container_prefix(), &marker).await;
            let page = page.map_err(|error| explain(error, "", &self.connection.credentials, now()))?;
            let found = page.containers.unwrap_or_default().container;
            names.extend(found.into_iter().map(|container| container.name));
            match page.next_marker.filter(|marker| !marker.is_empty()) {
                Some(next) => marker = next,
                None => break,
            }
        }
        Ok(names)
    }

    /// One answer of `List Containers`.
    async fn page(&self, prefix: &str, marker: &str) -> Result<Page> {
        let connection = &self.connection;
        let url = Url::parse_with_params(
            &format!("{}/", connection.endpoint),
            [("comp", "list"), ("prefix", prefix), ("marker", marker)]
                .iter()
                .filter(|(_, value)| !value.is_empty()),
        );
        let url = url.map_err(|error| generic(error.to_string()))?;
        let credential = connection.credentials.get_credential().await?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse().map_err(|_| generic("the address is no URI".to_owned()))?;
        AzureAuthorizer::new(&credential, &connection.account).try_authorize(&mut request)?;
        let answer = connection.client.get(&request.uri().to_string(), request.headers().clone()).await;
        let answer = answer.map_err(|failure| generic(failure.cause))?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let path = String::new();
        match answer.status {
            200 => quick_xml::de::from_str(&text)
                .map_err(|error| generic(format!("no list of containers: {error}"))),
            401 => Err(Error::Unauthenticated { path, source: text.into() }),
            403 => Err(Error::PermissionDenied { path, source: text.into() }),
            status => Err(generic(format!("the storage account answered {status}: {text}"))),
        }
    }
}

/// `EnumerationResults` of `List Containers`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    containers: Option<ContainerList>,
    next_marker: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerList {
    container: Vec<Container>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    name: String,
}

/// The names in an answer, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(in crate::input::bucket) fn names(text: &str) -> Vec<String> {
    let page: Option<Page> = quick_xml::de::from_str(text).ok();
    let containers = page.and_then(|page| page.containers).unwrap_or_default();
    containers.container.into_iter().map(|container| container.name).collect()
}

impl fmt::Display for AzureStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::One { name, .. } => write!(out, "container {name} of {}", self.connection.account),
            Scope::Several { .. } => write!(out, "containers of {}", self.connection.account),
        }
    }
}

#[async_trait]
impl ObjectStore for AzureStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(within) = self.within(location)? else { return Err(read_only()) };
        let got =
            within.store.get_opts(&within.path, options).await.map_err(|error| within.explain(error))?;
        Ok(GetResult { meta: within.meta(got.meta.clone()), ..got })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let within = match self.within(&prefix.cloned().unwrap_or_default()) {
            Ok(Some(within)) => Arc::new(within),
            Ok(None) => return failed(generic("a listing of all containers at once".to_owned())),
            Err(error) => return failed(error),
        };
        let (listing, refused) = (within.store.list(Some(&within.path)), Arc::clone(&within));
        listing.map_ok(move |meta| within.meta(meta)).map_err(move |error| refused.explain(error)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let within = self.within(&prefix.cloned().unwrap_or_default())?;
        let Some(within) = within else {
            let Scope::Several { containers, .. } = &self.scope else { return Err(read_only()) };
            let names = self.containers(containers).await?;
            let common_prefixes = names.iter().map(|name| Path::from(name.as_str())).collect();
            return Ok(ListResult {
                common_prefixes,
                objects: Vec::new(),
                extensions: object_store::Extensions::new(),
            });
        };
        let listed = within.store.list_with_delimiter(Some(&within.path)).await;
        let listed = listed.map_err(|error| within.explain(error))?;
        Ok(ListResult {
            common_prefixes: listed.common_prefixes.iter().map(|path| within.key(path)).collect(),
            objects: listed.objects.into_iter().map(|meta| within.meta(meta)).collect(),
            extensions: listed.extensions,
        })
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only())
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        failed(read_only())
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only())
    }
}

fn failed<T: Send + 'static>(error: Error) -> BoxStream<'static, Result<T>> {
    stream::once(std::future::ready(Err(error))).boxed()
}

fn generic(reason: String) -> Error {
    Error::Generic { store: "MicrosoftAzure", source: reason.into() }
}

/// auditferry only reads.
fn read_only() -> Error {
    Error::NotSupported { source: "only blobs are read".into() }
}

/// The store's contract has no clock; a signature that expired is told from a wrong one by it.
fn now() -> Millis {
    Millis::new(jiff::Timestamp::now().as_millisecond()).unwrap_or(Date::EPOCH.start())
}
