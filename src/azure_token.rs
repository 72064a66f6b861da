//! Access tokens of Microsoft Entra ID, for whatever takes them as `Authorization: Bearer`: a storage account, the Azure
//! Resource Manager, Event Hubs.
//!
//! A token is kept and renewed before it ends. The crate `azure_identity` was rejected: it takes a client secret once and
//! for all, wants OpenSSL for certificates, has the metadata service's address built in and refuses an authority without
//! TLS, so that none of it could be tested against a server of one's own, and its errors do not tell a refusal from a
//! time-out.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Mutex;
use url::form_urlencoded;

use crate::azure_identity::Identity;
pub use crate::azure_identity::IdentitySettings;
use crate::batch::Request;
use crate::component::BuildError;
use crate::compress::Encoding;
use crate::http::{Answer, Client, HttpSettings};
use crate::secret::{blot_out, excerpt};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A token is renewed this long before it ends.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// After a renewal that failed while the old token lasts, wait this long before the next.
const RETRY: Duration = Duration::from_secs(30);
/// For this long a failure is everybody's answer: those who wait would otherwise fail one after the other.
const FAILED: Duration = Duration::from_secs(5);

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
        Self::through(settings, scope, &HttpSettings::default())
    }

    /// The same; the tokens are fetched through the proxy of these settings.
    ///
    /// # Errors
    /// [`BuildError`] naming the key that is missing or wrong.
    pub fn through(
        settings: &IdentitySettings,
        scope: &str,
        http: &HttpSettings,
    ) -> Result<Self, BuildError> {
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::choose(settings, scope, http, &environment)
    }

    fn choose(
        settings: &IdentitySettings,
        scope: &str,
        http: &HttpSettings,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, BuildError> {
        let identity = Identity::choose(settings, environment)?;
        let direct = HttpSettings { proxy: Some("none".to_owned()), ..HttpSettings::default() };
        let own = match identity {
            // The metadata service is on the machine itself: no proxy knows it.
            Identity::Managed { .. } => direct.elsewhere(TIMEOUT),
            Identity::Application { .. } => http.elsewhere(TIMEOUT),
        };
        Ok(Self {
            identity,
            table: settings.table,
            scope: scope.to_owned(),
            client: Client::new(&own)?,
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

    /// Tells that this token was refused although it has not ended: the next one is fetched anew.
    pub async fn forget(&self, refused: &Token) {
        let mut kept = self.kept.lock().await;
        // Another task may have fetched a new one in the meantime.
        kept.token.take_if(|token| token.text == refused.text);
    }

    async fn fetch(&self, now: SystemTime) -> Result<Token, TokenError> {
        let mut secrets = Vec::new();
        let answer = match &self.identity {
            Identity::Application { client_id, token_url, proof } => {
                let proven = proof
                    .fields(client_id, token_url, now)
                    .map_err(|reason| self.refused(reason, format!("check {}", proof.named())))?;
                let form = form_request(client_id, &self.scope, &proven);
                secrets.extend(proven.into_iter().map(|(_, value)| value));
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
        let mut reason = refusal.reason().unwrap_or_else(|| answer.summary());
        for secret in &secrets {
            blot_out(secret, &mut reason);
        }
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
        let text = text.trim_end_matches('.');
        (!text.is_empty()).then(|| excerpt(text, 300))
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
