//! Opens the store that a bucket input's `url` names: a client with the right address, credentials and time limits.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use super::azure;
use super::azure_path::Containers;
use crate::aws;
use crate::component::BuildError;
use crate::connection::Connections;
use crate::http::HttpSettings;

mod connector;
mod settings;

pub(super) use connector::Connector;
pub(super) use settings::{AzureSettings, GcsSettings, S3Settings, StoreSettings};

/// Where the objects are.
#[derive(Debug)]
pub(super) struct Store {
    /// The client; local paths are relative to `root`.
    pub(super) store: Arc<dyn ObjectStore>,
    /// What all keys begin with.
    pub(super) prefix: Path,
    /// Kind of store.
    pub(super) scheme: Scheme,
    /// The directory, where it is a local one.
    pub(super) root: Option<PathBuf>,
    /// Cloud the store belongs to: `aws`, `gcp` or `azure`.
    pub(super) cloud: Option<&'static str>,
}

/// Kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Amazon S3 or what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// A directory.
    Local,
}

/// Opens the store of a URL; with `containers`, that of a whole Azure account. No request is sent, but the region of an
/// S3 bucket may be asked of the machine's metadata.
///
/// # Errors
/// [`BuildError`] naming the key: `url`, one of the connections, or one below `s3`, `gcs` or `azure`.
pub(super) fn open(
    url: &str,
    settings: &StoreSettings,
    containers: Option<&Containers>,
    base: &FilePath,
) -> Result<Store, BuildError> {
    // The clients have no cryptography of their own; whoever comes first installs it for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return local(&base.join(url));
    };
    let (scheme, cloud) = match scheme {
        "file" => return local(&file_path(url)?),
        "s3" => (Scheme::S3, "aws"),
        "gs" => (Scheme::Gcs, "gcp"),
        "az" => (Scheme::Azure, "azure"),
        other => {
            return Err(BuildError::new(
                "url",
                format!(
                    "`{other}://` is no store; write s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, \
                     file:///directory or a path"
                ),
            ));
        }
    };
    // A store that cannot be built does not say which key is wrong.
    Connections::open(&settings.http)?;
    if let (Scheme::Azure, Some(containers), false) = (scheme, containers, rest.is_empty()) {
        let store = azure::account(rest, settings, containers)?;
        return Ok(Store { store, prefix: Path::default(), scheme, root: None, cloud: Some(cloud) });
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(BuildError::new("url", format!("`{url}` names no bucket; write one after ://")));
    }
    if prefix.starts_with('/') {
        // The parser would drop it, and another prefix would be read.
        return Err(BuildError::new("url", format!("`{url}` has an empty part in its prefix; remove one /")));
    }
    let prefix = Path::parse(prefix)
        .map_err(|error| BuildError::new("url", format!("`{prefix}` cannot be a prefix: {error}")))?;
    let store = match scheme {
        Scheme::S3 => s3(bucket, &settings.s3, &settings.http)?,
        Scheme::Gcs => gcs(bucket, &settings.gcs, &settings.http)?,
        Scheme::Azure | Scheme::Local => azure::container(bucket, settings)?,
    };
    Ok(Store { store, prefix, scheme, root: None, cloud: Some(cloud) })
}

fn file_path(url: &str) -> Result<PathBuf, BuildError> {
    Url::parse(url).ok().and_then(|url| url.to_file_path().ok()).ok_or_else(|| {
        BuildError::new(
            "url",
            format!("`{url}` is no local directory; write file:///absolute/path or a path"),
        )
    })
}

fn local(path: &FilePath) -> Result<Store, BuildError> {
    let failed = |reason: &dyn std::fmt::Display| {
        BuildError::new("url", format!("cannot read the directory {}: {reason}", path.display()))
    };
    // Notifications name real paths: the root has to be one as well.
    let root = path.canonicalize().map_err(|error| match path.is_relative() {
        true => failed(&format_args!("{error}; a relative path begins where auditferry is started")),
        false => failed(&error),
    })?;
    if !root.is_dir() {
        return Err(failed(&"it is not a directory"));
    }
    let store = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed(&error))?;
    Ok(Store {
        store: Arc::new(store),
        prefix: Path::default(),
        scheme: Scheme::Local,
        root: Some(root),
        cloud: None,
    })
}

fn s3(bucket: &str, settings: &S3Settings, http: &HttpSettings) -> Result<Arc<dyn ObjectStore>, BuildError> {
    settings.check()?;
    let region = s3_region(settings)?;
    let provider = match settings.anonymous {
        true => None,
        false => aws::provider(&settings.login(), &region)?,
    };
    let builder = match provider {
        Some(provider) => AmazonS3Builder::new().with_credentials(provider),
        None => AmazonS3Builder::from_env(),
    };
    let mut builder = builder
        .with_bucket_name(bucket)
        .with_region(region)
        .with_skip_signature(settings.anonymous)
        .with_client_options(client_options(settings.allow_http))
        .with_http_connector(Connector(http.clone()))
        .with_retry(retries());
    // AWS wants the bucket in the host name; most other servers are known by one name only.
    let path_style = settings.path_style.unwrap_or(settings.endpoint.is_some());
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if let Some(endpoint) = &settings.endpoint {
        let mut endpoint = endpoint_url("s3", endpoint, settings.allow_http)?;
        if !path_style {
            let host = format!("{bucket}.{}", endpoint.host_str().unwrap_or_default());
            endpoint.set_host(Some(&host)).map_err(|error| BuildError::new("s3.endpoint", error))?;
        }
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    Ok(Arc::new(builder.build().map_err(|error| BuildError::new("s3", error))?))
}

/// The region of the configuration, or the one the machine names.
pub(super) fn s3_region(settings: &S3Settings) -> Result<String, BuildError> {
    if let Some(region) = &settings.region {
        return Ok(region.clone());
    }
    if settings.endpoint.is_some() {
        // A server of one's own has no regions; the signature wants a name all the same.
        return Ok(std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".to_owned()));
    }
    aws::region(settings.profile.as_deref()).ok_or_else(|| {
        BuildError::new(
            "s3.region",
            "neither the configuration nor AWS_REGION, the profile or the instance name a region; set the bucket's",
        )
    })
}

fn gcs(
    bucket: &str,
    settings: &GcsSettings,
    http: &HttpSettings,
) -> Result<Arc<dyn ObjectStore>, BuildError> {
    let builder = match &settings.service_account_file {
        Some(file) => GoogleCloudStorageBuilder::new().with_service_account_path(file.display().to_string()),
        None if settings.anonymous => GoogleCloudStorageBuilder::new(),
        None => GoogleCloudStorageBuilder::from_env(),
    };
    let mut builder = builder
        .with_bucket_name(bucket)
        .with_skip_signature(settings.anonymous)
        .with_client_options(client_options(settings.allow_http))
        .with_http_connector(Connector(http.clone()))
        .with_retry(retries());
    if let Some(endpoint) = &settings.endpoint {
        let endpoint = endpoint_url("gcs", endpoint, settings.allow_http)?;
        builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
    }
    let key = if settings.service_account_file.is_some() { "gcs.service_account_file" } else { "gcs" };
    Ok(Arc::new(builder.build().map_err(|error| BuildError::new(key, error))?))
}

/// The address of a service, which is not to be reached in the clear unless that is allowed.
pub(super) fn endpoint_url(table: &str, endpoint: &str, allow_http: bool) -> Result<Url, BuildError> {
    let wrong = |message: String| BuildError::new(&format!("{table}.endpoint"), message);
    let url = Url::parse(endpoint).map_err(|error| wrong(format!("`{endpoint}` is no URL: {error}")))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_http => Ok(url),
        "http" => Err(wrong(format!(
            "`{endpoint}` would send everything in the clear; use https, or set {table}.allow_http = true"
        ))),
        _ => Err(wrong(format!("`{endpoint}` is no https:// URL"))),
    }
}

/// Whether the store may be asked in the clear; the rest is [`Connector`]'s to say.
pub(super) fn client_options(allow_http: bool) -> ClientOptions {
    ClientOptions::new().with_allow_http(allow_http).with_timeout_disabled()
}

/// A few quick attempts; whatever lasts longer is the engine's to wait for, and to tell.
pub(super) fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(30),
    }
}

#[cfg(test)]
mod tests;
