//! Access tokens of Google Cloud.
//!
//! They come from `object_store`, which is in the tree for the buckets and signs for the same scope: with a service
//! account's key without any request, else with the application default credentials or the metadata service. The crate
//! `jsonwebtoken` would do the first of these three.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use object_store::{ClientOptions, RetryConfig};

use crate::component::BuildError;
use crate::http::innermost;
use crate::output::{HoldReason, Verdict};
use crate::secret::Secret;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of an answer that are repeated.
const MOST_SAID: usize = 500;

/// Where tokens come from. A provider keeps its token and renews it before it ends.
pub(super) struct Tokens {
    key: Option<Secret>,
    /// The provider, and the key that it was made with.
    provider: Mutex<Option<(String, GcpCredentialProvider)>>,
}

impl Tokens {
    /// Reads the key.
    ///
    /// # Errors
    /// [`BuildError`] if it cannot be had or is none.
    pub(super) fn new(key: Option<Secret>) -> Result<Self, BuildError> {
        let tokens = Self { key, provider: Mutex::default() };
        if tokens.key.is_some() {
            tokens.provider()?;
        }
        Ok(tokens)
    }

    /// A token that is valid for a while, or why there is none.
    pub(super) async fn get(&self) -> Result<String, Verdict> {
        let provider =
            self.provider().map_err(|error| Verdict::hold(HoldReason::Credentials, error.to_string()))?;
        match provider.get_credential().await {
            Ok(credential) => Ok(credential.bearer.clone()),
            Err(error) => {
                // Whoever puts credentials right does so in a file that was read when the provider was made.
                self.forget();
                Err(no_token(&error))
            }
        }
    }

    /// Tells that the last token was refused: the next one is made anew.
    pub(super) fn forget(&self) {
        *self.provider.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn provider(&self) -> Result<GcpCredentialProvider, BuildError> {
        let wrong = |reason: &str| BuildError::new("service_account_key", reason);
        let key =
            self.key.as_ref().map(Secret::reveal).transpose().map_err(|error| wrong(&error.to_string()))?;
        let key = key.unwrap_or_default();
        let mut kept = self.provider.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, provider)) = &*kept
            && *of == key
        {
            return Ok(Arc::clone(provider));
        }
        let builder = match self.key {
            Some(_) => GoogleCloudStorageBuilder::new().with_service_account_key(key.clone()),
            None => GoogleCloudStorageBuilder::from_env(),
        };
        // `object_store` has no cryptography of its own; whoever comes first installs it for the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The reason would repeat parts of the key.
        let store = builder
            .with_bucket_name("none")
            .with_client_options(ClientOptions::new().with_timeout(TIMEOUT))
            // The engine tries again, and says so.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build()
            .map_err(|_| match self.key {
                Some(_) => wrong("is not the JSON key of a service account; make one in Google's console"),
                None => wrong(
                    "is not set, and the application default credentials cannot be read; set one of them",
                ),
            })?;
        let provider = Arc::clone(store.credentials());
        *kept = Some((key, Arc::clone(&provider)));
        Ok(provider)
    }
}

/// How `object_store` begins to tell of an answer that is no success. Its type for that is not public.
const ANSWERED: &str = "Server returned non-2xx status code: ";

/// What Google refuses stays refused until a human acts: revoked application default credentials, a machine or pod without
/// a service account. No answer, or a fault of its own, passes.
fn no_token(error: &(dyn Error + 'static)) -> Verdict {
    let said: String = innermost(error).chars().take(MOST_SAID).collect();
    let status = said.strip_prefix(ANSWERED).and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0);
    match status {
        400..500 if ![408, 429].contains(&status) => Verdict::hold(
            HoldReason::Credentials,
            format!(
                "Google refuses an access token: {said}; renew the application default credentials, set \
                 `service_account_key`, or give the machine or pod a service account"
            ),
        ),
        _ => Verdict::retry(
            format!(
                "no access token from Google: {said}; set `service_account_key`, or run where there is a service account"
            ),
            None,
        ),
    }
}
