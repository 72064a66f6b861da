//! Access tokens of Microsoft Entra ID, for whatever takes them as `Authorization: Bearer`: a storage account, the Azure
//! Resource Manager, Event Hubs.
//!
//! | credentials | asks | proves itself by |
//! |---|---|---|
//! | client secret | `<authority>/<tenant>/oauth2/v2.0/token` | the secret |
//! | client certificate | the same | a JWT signed with the certificate's key |
//! | workload identity | the same | the token that Kubernetes keeps in a file |
//! | managed identity | the machine's metadata service, or App Service's | running there |
//!
//! Secrets and files are read for each request, so that a new one needs no restart. The crate `azure_identity` was
//! rejected: it takes a client secret once and for all, wants OpenSSL for certificates, has the metadata service's
//! address built in and refuses an authority without TLS, so that none of it could be tested against a server of one's
//! own, and its errors do not tell a refusal from a time-out.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use rustls::SignatureScheme;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Mutex;
use url::form_urlencoded;

use crate::batch::Request;
use crate::component::BuildError;
use crate::compress::Encoding;
use crate::http::{Answer, Client, HttpSettings, base_url};
use crate::secret::Secret;
use crate::units::Period;

/// Entra ID of the public cloud.
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The metadata service of a virtual machine, or of what stands in for it in a cluster.
const METADATA: &str = "http://169.254.169.254";
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A token is renewed this long before it ends.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// After a renewal that failed while the old token lasts, wait this long before the next.
const RETRY: Duration = Duration::from_secs(30);
/// For this long a failure is everybody's answer: those who wait would otherwise fail one after the other.
const FAILED: Duration = Duration::from_secs(5);

/// Whose tokens to get. What is left out is taken from the environment (`AZURE_CLIENT_ID` and the like), as Azure's own
/// tools do; without any secret there, the workload identity of the pod or the managed identity of the machine is used.
#[derive(Clone, Debug, Default)]
pub struct IdentitySettings {
    /// Table of the configuration that the keys below stand in, for messages: `azure`.
    pub table: &'static str,
    /// Application (client) id of a service principal or of a user-assigned managed identity.
    pub client_id: Option<String>,
    /// Directory (tenant) id of the service principal.
    pub tenant_id: Option<String>,
    /// Client secret of the service principal.
    pub client_secret: Option<Secret>,
    /// PEM file with the service principal's certificate and its RSA key.
    pub client_certificate_file: Option<PathBuf>,
    /// Entra ID of a sovereign cloud. Default: `AZURE_AUTHORITY_HOST`, or the public cloud's.
    pub authority_host: Option<String>,
}

/// An access token.
#[derive(Clone)]
pub struct Token {
    text: Arc<str>,
    /// When it ends.
    pub ends: SystemTime,
}

impl Token {
    /// The token itself, as it goes behind `Bearer `.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Token(ends {:?})", self.ends)
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Stays until a human changes something.
    #[error("no access token from {place}: {reason}; {remedy}")]
    Refused {
        /// Who was asked.
        place: String,
        /// What it said.
        reason: String,
        /// What to do, naming the configuration key.
        remedy: String,
    },
    /// Passes by itself.
    #[error("no access token from {place}: {reason}")]
    Unavailable {
        /// Who was asked.
        place: String,
        /// What happened.
        reason: String,
    },
}

/// Access tokens of one identity for one scope. A token is kept and renewed before it ends; whoever comes while it is
/// being fetched waits for it.
#[derive(Debug)]
pub struct AzureToken {
    identity: Identity,
    table: &'static str,
    scope: String,
    client: Client,
    kept: Mutex<Kept>,
}

impl AzureToken {
    /// Chooses the credentials; `scope` is the resource with `/.default` behind it:
    /// `https://management.azure.com/.default`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`BuildError`] naming the key that is missing or wrong.
    pub fn new(settings: &IdentitySettings, scope: &str) -> Result<Self, BuildError> {
        Self::choose(settings, scope, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn choose(
        settings: &IdentitySettings,
        scope: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        let identity = Identity::choose(settings, environment)?;
        // The metadata service is on the machine itself: no proxy knows it.
        let proxy = matches!(identity, Identity::Managed { .. }).then(|| "none".to_owned());
        let http = HttpSettings { timeout: Period(TIMEOUT), proxy, ..HttpSettings::default() };
        Ok(Self {
            identity,
            table: settings.table,
            scope: scope.to_owned(),
            client: Client::new(&http)?,
            kept: Mutex::default(),
        })
    }

    /// A token that is valid for some minutes yet.
    ///
    /// # Errors
    /// [`TokenError`] if none can be had and the last one has ended.
    pub async fn get(&self) -> Result<Token, TokenError> {
        let mut kept = self.kept.lock().await;
        let now = SystemTime::now();
        kept.get(now, self.fetch(now)).await
    }

    async fn fetch(&self, now: SystemTime) -> Result<Token, TokenError> {
        let answer = match &self.identity {
            Identity::Application { client_id, token_url, proof } => {
                let proven = proof
                    .fields(client_id, token_url, now)
                    .map_err(|reason| self.refused(reason, format!("check {}", proof.named())))?;
                let form = form_request(client_id, &self.scope, &proven);
                self.client.send(Method::POST, token_url, form_headers(), &form).await
            }
            Identity::Managed { url, client_id, header } => {
                let url = resource_url(url, &self.scope, client_id.as_deref());
                self.client.get(&url, HeaderMap::from_iter([header.clone()])).await
            }
        };
        let managed = matches!(self.identity, Identity::Managed { .. });
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) if managed && !failure.ambiguous => {
                return Err(self.refused(failure.cause, self.no_identity()));
            }
            Err(failure) => return Err(self.unavailable(failure.cause)),
        };
        if answer.is_success() {
            return granted(&answer, now).ok_or_else(|| self.unavailable("the answer holds no token".into()));
        }
        let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
        let reason = refusal.reason().unwrap_or_else(|| answer.summary());
        match answer.status {
            // 404 and 410: the metadata service is being updated.
            408 | 429 | 500.. => Err(self.unavailable(reason)),
            404 | 410 if managed => Err(self.unavailable(reason)),
            _ => Err(self.refused(reason, self.remedy(refusal.code()))),
        }
    }

    fn refused(&self, reason: String, remedy: String) -> TokenError {
        TokenError::Refused { place: self.identity.place(), reason, remedy }
    }

    fn unavailable(&self, reason: String) -> TokenError {
        TokenError::Unavailable { place: self.identity.place(), reason }
    }

    fn no_identity(&self) -> String {
        let table = self.table;
        format!("give this machine a managed identity, or set {table}.client_id and {table}.client_secret")
    }

    /// What to do about an error code of Entra ID.
    fn remedy(&self, code: Option<u32>) -> String {
        let table = self.table;
        let Identity::Application { proof, .. } = &self.identity else {
            return self.no_identity();
        };
        let named = proof.named();
        match code {
            // Wrong; expired; signed with a key that the application does not know.
            Some(7_000_215 | 7_000_222 | 700_027) => format!("make a new one and put it in {named}"),
            Some(700_016) => {
                format!("check {table}.client_id, and that it is of the tenant {table}.tenant_id")
            }
            Some(90_002 | 900_021 | 900_023) => format!("check {table}.tenant_id"),
            Some(70_021 | 700_211..=700_213) => {
                format!(
                    "give the application {table}.client_id a federated credential for this service account"
                )
            }
            _ => format!("check {table}.client_id, {table}.tenant_id and {named}"),
        }
    }
}

/// Who asks for tokens, and whom.
#[derive(Debug)]
enum Identity {
    Application { client_id: String, token_url: String, proof: Proof },
    Managed { url: String, client_id: Option<String>, header: (HeaderName, HeaderValue) },
}

/// How an application proves that it is one. `named` is the key or variable that the user set.
#[derive(Debug)]
enum Proof {
    Secret { secret: Secret, named: String },
    Certificate { file: PathBuf, named: String },
    Federated { file: PathBuf },
}

impl Identity {
    fn choose(
        settings: &IdentitySettings,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        let key = |name: &str| format!("{}.{name}", settings.table);
        let client_id = settings.client_id.clone().or_else(|| environment("AZURE_CLIENT_ID"));
        let Some(proof) = Proof::choose(settings, environment) else {
            return Self::managed(client_id, environment);
        };
        let authority = settings.authority_host.clone().or_else(|| environment("AZURE_AUTHORITY_HOST"));
        let authority =
            base_url(&key("authority_host"), &authority.unwrap_or_else(|| AUTHORITY.to_owned()), false)?;
        let needed = |value: Option<String>, name: &str| {
            let message = format!("missing; {} needs it", proof.named());
            value.ok_or_else(|| BuildError::new(&key(name), message))
        };
        let tenant_id = settings.tenant_id.clone().or_else(|| environment("AZURE_TENANT_ID"));
        let tenant_id = needed(tenant_id, "tenant_id")?;
        if !tenant_id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')) {
            return Err(BuildError::new(
                &key("tenant_id"),
                format!("`{tenant_id}` is no id or domain of a tenant"),
            ));
        }
        let token_url = format!("{authority}/{tenant_id}/oauth2/v2.0/token");
        Ok(Self::Application { client_id: needed(client_id, "client_id")?, token_url, proof })
    }

    fn managed(
        client_id: Option<String>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        if let (Some(endpoint), Some(secret)) =
            (environment("IDENTITY_ENDPOINT"), environment("IDENTITY_HEADER"))
        {
            let url = format!("{endpoint}?api-version=2019-08-01&");
            let header = crate::http::header("IDENTITY_HEADER", "x-identity-header", &secret, true)?;
            return Ok(Self::Managed { url, client_id, header });
        }
        let host = environment("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| METADATA.to_owned());
        let host = host.trim_end_matches('/');
        let url = format!("{host}/metadata/identity/oauth2/token?api-version=2018-02-01&");
        let header = crate::http::header("", "metadata", "true", false)?;
        Ok(Self::Managed { url, client_id, header })
    }

    fn place(&self) -> String {
        let (Self::Application { token_url: url, .. } | Self::Managed { url, .. }) = self;
        let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let host = host.unwrap_or_else(|| url.clone());
        match self {
            Self::Application { .. } => host,
            Self::Managed { .. } => format!("the managed identity at {host}"),
        }
    }
}

impl Proof {
    /// The proof that the configuration or else the environment has.
    fn choose(settings: &IdentitySettings, environment: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let key = |name: &str| format!("{}.{name}", settings.table);
        if let Some(secret) = settings.client_secret.clone() {
            return Some(Self::Secret { secret, named: key("client_secret") });
        }
        if let Some(file) = settings.client_certificate_file.clone() {
            return Some(Self::Certificate { file, named: key("client_certificate_file") });
        }
        if let Some(secret) = environment("AZURE_CLIENT_SECRET") {
            let named = "AZURE_CLIENT_SECRET".to_owned();
            return Some(Self::Secret { secret: Secret::plain(&secret), named });
        }
        if let Some(file) = environment("AZURE_CLIENT_CERTIFICATE_PATH") {
            let named = "AZURE_CLIENT_CERTIFICATE_PATH".to_owned();
            return Some(Self::Certificate { file: file.into(), named });
        }
        environment("AZURE_FEDERATED_TOKEN_FILE").map(|file| Self::Federated { file: file.into() })
    }

    fn named(&self) -> &str {
        match self {
            Self::Secret { named, .. } | Self::Certificate { named, .. } => named,
            Self::Federated { .. } => "AZURE_FEDERATED_TOKEN_FILE",
        }
    }

    /// The fields of the form that prove who asks, or why there are none.
    fn fields(
        &self,
        client_id: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<Vec<(&'static str, String)>, String> {
        let assertion = match self {
            Self::Secret { secret, .. } => {
                let secret = secret.reveal().map_err(|error| error.to_string())?;
                return Ok(vec![("client_secret", secret)]);
            }
            Self::Certificate { file, .. } => {
                signed_assertion(&read(file)?, client_id, audience, now).map_err(|why| why.to_owned())?
            }
            Self::Federated { file } => String::from_utf8_lossy(&read(file)?).trim().to_owned(),
        };
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
        Ok(vec![("client_assertion_type", kind), ("client_assertion", assertion)])
    }
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// A JWT by which the holder of a certificate's key shows that it is the application `client_id`
/// (learn.microsoft.com, "Microsoft identity platform application authentication certificate credentials").
fn signed_assertion(
    pem: &[u8],
    client_id: &str,
    audience: &str,
    now: SystemTime,
) -> Result<String, &'static str> {
    let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| "the file holds no PEM certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "the file holds no PEM private key")?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key);
    let signer = key.ok().and_then(|key| key.choose_scheme(&[SignatureScheme::RSA_PSS_SHA256]));
    let signer = signer.ok_or("the private key is no RSA key, which Entra ID wants")?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let unique = getrandom::u64().map_err(|_| "the system gives no random numbers")?;
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate));
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint });
    let claims = json!({
        "aud": audience, "iss": client_id, "sub": client_id, "jti": format!("{unique:016x}"),
        "nbf": now.saturating_sub(60), "exp": now + 600,
    });
    let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = signer.sign(signed.as_bytes()).map_err(|_| "the private key does not sign")?;
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

fn form_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))])
}

fn form_request(client_id: &str, scope: &str, proven: &[(&str, String)]) -> Request {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([("client_id", client_id), ("scope", scope), ("grant_type", "client_credentials")]);
    let body = form.extend_pairs(proven).finish();
    Request { uncompressed_bytes: body.len(), body: body.into(), encoding: Encoding::None, events: 0 }
}

/// Where a managed identity's token for a scope is; `url` ends in `&`.
fn resource_url(url: &str, scope: &str, client_id: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("resource", scope.trim_end_matches("/.default"));
    query.extend_pairs(client_id.map(|id| ("client_id", id)));
    format!("{url}{}", query.finish())
}

/// Entra ID writes seconds as a number, the metadata services as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Seconds {
    fn get(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(seconds) => Some(*seconds),
            Self::Text(text) => text.parse().ok(),
        };
        // Beyond any token's life, and within what a clock can count.
        seconds.map(|seconds| Duration::from_secs(seconds.min(1 << 40)))
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<Seconds>,
    expires_on: Option<Seconds>,
}

fn granted(answer: &Answer, now: SystemTime) -> Option<Token> {
    let granted: Granted = serde_json::from_slice(&answer.body).ok()?;
    let ends = match (&granted.expires_in, &granted.expires_on) {
        (Some(lasts), _) => now + lasts.get()?,
        // App Service names the time only.
        (None, Some(ends)) => UNIX_EPOCH + ends.get()?,
        (None, None) => return None,
    };
    (!granted.access_token.is_empty()).then(|| Token { text: granted.access_token.into(), ends })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    error_description: String,
}

impl Refusal {
    /// The first line of the description; what follows are ids for Microsoft's support.
    fn reason(&self) -> Option<String> {
        let text = self.error_description.lines().next().unwrap_or(&self.error).trim();
        let text = text.split(" Trace ID:").next().unwrap_or(text);
        (!text.is_empty()).then(|| text.chars().take(300).collect())
    }

    /// The number behind `AADSTS`.
    fn code(&self) -> Option<u32> {
        let digits = self.error_description.trim_start().strip_prefix("AADSTS")?;
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

/// The last token or the last failure.
#[derive(Debug, Default)]
struct Kept {
    token: Option<Token>,
    /// When to ask again.
    renew: Option<SystemTime>,
    failure: Option<TokenError>,
}

impl Kept {
    async fn get(
        &mut self,
        now: SystemTime,
        fetch: impl Future<Output = Result<Token, TokenError>>,
    ) -> Result<Token, TokenError> {
        let valid = |token: &&Token| now < token.ends;
        if self.renew.is_some_and(|renew| now < renew) {
            if let Some(token) = self.token.as_ref().filter(valid) {
                return Ok(token.clone());
            }
            if let Some(failure) = &self.failure {
                return Err(failure.clone());
            }
        }
        match fetch.await {
            Ok(token) => {
                self.renew = Some(token.ends.checked_sub(EARLY).unwrap_or(now).max(now + RETRY));
                self.failure = None;
                Ok(self.token.insert(token).clone())
            }
            Err(error) => match self.token.as_ref().filter(valid) {
                Some(token) => {
                    tracing::warn!(%error, "cannot renew an Azure access token; using the old one");
                    self.renew = Some(now + RETRY);
                    Ok(token.clone())
                }
                None => {
                    self.renew = Some(now + FAILED);
                    Err(self.failure.insert(error).clone())
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
