//! The `Authorization` of requests to the workspace: a personal access token, or OAuth for a service principal.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::refusal::{self, Refusal};
use crate::component::BuildError;
use crate::http::{Client, MAX_ANSWER_BYTES, header};
use crate::input::InputError;
use crate::secret::Secret;

/// A token is renewed so long before it expires, or at half its life if that is shorter.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// Life of a token that does not say.
const USUAL_LIFE: Duration = Duration::from_secs(3600);

/// Who reads.
#[derive(Clone, Debug)]
pub(super) enum Credentials {
    /// A personal access token.
    Token(Secret),
    /// A service principal.
    Client { id: String, secret: Secret },
}

impl Credentials {
    /// Those that are configured.
    pub(super) fn of(
        id: Option<&String>,
        secret: Option<&Secret>,
        token: Option<&Secret>,
    ) -> Result<Self, BuildError> {
        match (id, secret, token) {
            (None, None, Some(token)) => Ok(Self::Token(token.clone())),
            (Some(id), Some(secret), None) => Ok(Self::Client { id: id.clone(), secret: secret.clone() }),
            (None, None, None) => {
                Err(BuildError::new("token", "is missing: give it, or client_id with client_secret"))
            }
            (Some(_), None, None) => {
                Err(BuildError::new("client_secret", "is missing: client_id needs its secret"))
            }
            (None, Some(_), None) => Err(BuildError::new("client_id", "is missing: client_secret needs it")),
            (_, _, Some(_)) => Err(BuildError::new("", "keep one of token and client_id with client_secret")),
        }
    }

    /// The keys a user can act on.
    pub(super) fn keys(&self) -> &'static str {
        match self {
            Self::Token(_) => "`token`",
            Self::Client { .. } => "`client_id` and `client_secret`",
        }
    }

    /// Fails where the secret is not there.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let (key, secret) = match self {
            Self::Token(secret) => ("token", secret),
            Self::Client { secret, .. } => ("client_secret", secret),
        };
        secret.reveal().map(drop).map_err(|error| BuildError::new(key, error))
    }
}

/// Logs in, and remembers the token while it is good.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Credentials,
    /// Where tokens are given.
    token_url: String,
    cached: Mutex<Option<Cached>>,
}

struct Cached {
    value: HeaderValue,
    renew_at: Instant,
}

impl std::fmt::Debug for Cached {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Cached")
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

/// The error of RFC 6749, 5.2.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Denied {
    error: String,
    error_description: String,
}

impl Login {
    /// To the workspace at this address.
    pub(super) fn new(url: &str, credentials: Credentials) -> Self {
        Self { credentials, token_url: format!("{url}/oidc/v1/token"), cached: Mutex::new(None) }
    }

    /// The credentials it works with.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The header of a request.
    ///
    /// # Errors
    /// [`InputError`] if the secret is not there, or no token is given for it.
    pub(super) async fn header(&self, client: &Client) -> Result<HeaderValue, InputError> {
        match &self.credentials {
            Credentials::Token(secret) => bearer(&secret.reveal().map_err(|error| self.no_secret(&error))?)
                .map_err(|error| self.no_secret(&error)),
            Credentials::Client { id, secret } => {
                let mut cached = self.cached.lock().await;
                if let Some(known) = &*cached
                    && Instant::now() < known.renew_at
                {
                    return Ok(known.value.clone());
                }
                let secret = secret.reveal().map_err(|error| self.no_secret(&error))?;
                let granted = self.ask(client, id, &secret).await?;
                let value = granted.value.clone();
                *cached = Some(granted);
                Ok(value)
            }
        }
    }

    /// Forgets a token that the workspace no longer takes; `false` if there is no other to be had.
    pub(super) async fn renew(&self) -> bool {
        self.cached.lock().await.take().is_some()
    }

    /// A message of the workspace without the token, should it repeat it.
    pub(super) async fn blot(&self, message: String) -> String {
        let token = match &self.credentials {
            Credentials::Token(secret) => secret.reveal().ok(),
            Credentials::Client { .. } => {
                let cached = self.cached.lock().await;
                let value = cached.as_ref().and_then(|cached| cached.value.to_str().ok());
                value.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned)
            }
        };
        match token {
            Some(token) if !token.is_empty() => message.replace(&token, "***"),
            _ => message,
        }
    }

    async fn ask(&self, client: &Client, id: &str, secret: &str) -> Result<Cached, InputError> {
        let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        let (_, authorization) =
            header("client_secret", "authorization", &basic, true).map_err(|error| self.no_secret(&error))?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let form = Bytes::from_static(b"grant_type=client_credentials&scope=all-apis");
        let answer = client
            .ask(Method::POST, &self.token_url, headers, form, MAX_ANSWER_BYTES)
            .await
            .map_err(|failure| refusal::no_answer(self.action(), &failure))?;
        if !answer.is_success() {
            // Nothing else of the answer is repeated: it was asked with the secret.
            let denied: Denied = serde_json::from_slice(&answer.body).unwrap_or_default();
            let code = denied.error.replace(secret, "***");
            let said = format!("{code} {}", denied.error_description.replace(secret, "***"));
            return Err(Refusal {
                action: self.action(),
                status: answer.status,
                code: &code,
                message: said.trim(),
                retry_after: answer.retry_after,
            }
            .of_login(self.credentials.keys()));
        }
        let granted = serde_json::from_slice::<Granted>(&answer.body).ok();
        let granted =
            granted.and_then(|granted| Some((bearer(&granted.access_token).ok()?, granted.expires_in)));
        let Some((value, expires_in)) = granted else {
            return Err(InputError::Refused {
                action: self.action(),
                source: "the answer holds no token".into(),
                remedy: "check that `url` is the address of a workspace".to_owned(),
            });
        };
        let life = expires_in.map_or(USUAL_LIFE, Duration::from_secs);
        Ok(Cached { value, renew_at: Instant::now() + life.saturating_sub(RENEW_BEFORE).max(life / 2) })
    }

    fn action(&self) -> String {
        format!("cannot log in at {}", self.token_url)
    }

    fn no_secret(&self, error: &dyn ToString) -> InputError {
        InputError::Refused {
            action: "cannot log in to the workspace".to_owned(),
            source: error.to_string().into(),
            remedy: format!("check {}", self.credentials.keys()),
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, BuildError> {
    header("token", "authorization", &format!("Bearer {token}"), true).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;

    use super::*;
    use crate::http::HttpSettings;

    #[tokio::test]
    async fn an_answer_that_repeats_the_secret_does_not_show_it() {
        for body in [
            r#"{"error":"invalid_client","error_description":"hunter2 is no secret of ours"}"#,
            r#"{"error":"hunter2","error_description":"is no secret of ours"}"#,
        ] {
            let router = Router::new().fallback(move || std::future::ready((StatusCode::UNAUTHORIZED, body)));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let mut server = tokio::task::JoinSet::new();
            server.spawn(async { axum::serve(listener, router).await.unwrap() });
            let credentials = Credentials::Client { id: "me".to_owned(), secret: Secret::plain("hunter2") };
            let client = Client::new(&HttpSettings::default()).unwrap();
            let error = Login::new(&url, credentials).header(&client).await.unwrap_err();
            let text = error.to_string();
            assert!(error.needs_a_human() && text.contains("no secret of ours"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
