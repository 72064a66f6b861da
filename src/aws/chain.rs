//! The AWS SDK's chain: environment, profile files (roles, processes and SSO included), web identity, ECS and EC2
//! metadata, and on top of it a role to assume.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Builder, Connector, tls};
use aws_types::sdk_config::SharedHttpClient;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use super::{AwsLogin, Keys};

/// Credentials are renewed this long before they end.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// Those that never end are looked up again this often: somebody may have changed the file.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);
/// After a renewal that failed or gave nothing new, wait this long before the next.
const RETRY: Duration = Duration::from_secs(30);

/// Credentials found by the chain, kept until shortly before they end.
#[derive(Debug)]
pub(super) struct Chain {
    login: AwsLogin,
    keys: Option<Keys>,
    region: String,
    kept: Mutex<Kept>,
}

impl Chain {
    pub(super) fn new(login: &AwsLogin, keys: Option<Keys>, region: &str) -> Self {
        Self { login: login.clone(), keys, region: region.to_owned(), kept: Mutex::default() }
    }

    /// Asks the chain. It is built anew each time, because the SDK reads profile files only once.
    async fn find(&self) -> Result<Credentials, CredentialsError> {
        let mut loader = loader(self.login.profile.as_deref()).region(Region::new(self.region.clone()));
        if let Some(keys) = &self.keys {
            loader = loader.credentials_provider(keys.clone());
        }
        let config = loader.load().await;
        let base = config
            .credentials_provider()
            .ok_or_else(|| CredentialsError::not_loaded("the chain has no source of credentials"))?;
        let Some(role) = &self.login.role_arn else { return base.provide_credentials().await };
        let session = self.login.role_session_name.as_deref().unwrap_or("auditferry");
        let mut role = AssumeRoleProvider::builder(role).session_name(session).configure(&config);
        if let Some(external_id) = &self.login.external_id {
            role = role.external_id(external_id);
        }
        role.build_from_provider(base).await.provide_credentials().await
    }

    fn describe(&self) -> String {
        match (&self.login.role_arn, &self.login.profile) {
            (Some(role), _) => format!("{} {role}", self.login.key("role_arn")),
            (None, Some(profile)) => format!("{} {profile}", self.login.key("profile")),
            (None, None) => "the AWS credentials of this machine".to_owned(),
        }
    }
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = self.kept.lock().await;
        kept.get(SystemTime::now(), self.find()).await.map_err(|error| store_error(self.describe(), &error))
    }
}

#[derive(Debug, Default)]
struct Kept(Option<Found>);

#[derive(Clone, Debug)]
struct Found {
    credential: Arc<AwsCredential>,
    ends: Option<SystemTime>,
    renew: SystemTime,
}

impl Kept {
    /// What is kept, or what `find` gives where that is due. A renewal that fails is no harm while the old ones last.
    async fn get(
        &mut self,
        now: SystemTime,
        find: impl Future<Output = Result<Credentials, CredentialsError>>,
    ) -> Result<Arc<AwsCredential>, CredentialsError> {
        if let Some(found) = &self.0
            && now < found.renew
        {
            return Ok(Arc::clone(&found.credential));
        }
        let found = match (find.await, self.0.take()) {
            (Ok(credentials), _) => Found::new(&credentials, now),
            (Err(error), Some(old)) if old.ends.is_none_or(|ends| now < ends) => {
                tracing::warn!(
                    error = chain_text(&error),
                    "cannot renew AWS credentials; using the old ones"
                );
                Found { renew: now + RETRY, ..old }
            }
            (Err(error), _) => return Err(error),
        };
        Ok(Arc::clone(&self.0.insert(found).credential))
    }
}

impl Found {
    fn new(credentials: &Credentials, now: SystemTime) -> Self {
        let ends = credentials.expiry();
        let renew = match ends {
            Some(ends) => ends.checked_sub(EARLY).unwrap_or(now).max(now + RETRY),
            None => now + LOOK_AGAIN,
        };
        let credential = AwsCredential {
            key_id: credentials.access_key_id().to_owned(),
            secret_key: credentials.secret_access_key().to_owned(),
            token: credentials.session_token().map(str::to_owned),
        };
        Self { credential: Arc::new(credential), ends, renew }
    }
}

impl ProvideCredentials for Keys {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(match self.reveal() {
            Ok(keys) => Ok(Credentials::new(keys.key_id, keys.secret_key, keys.token, None, "configuration")),
            Err((key, error)) => Err(CredentialsError::invalid_configuration(format!("{key}: {error}"))),
        })
    }
}

/// Tells what a human has to change from what passes by itself. The SDK has one kind of error for a refusal and for a
/// lost connection: the codes by which STS refuses are the only difference.
fn store_error(path: String, error: &CredentialsError) -> object_store::Error {
    const REFUSALS: [&str; 7] = [
        "AccessDenied",
        "ExpiredToken",
        "InvalidClientTokenId",
        "InvalidIdentityToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClient",
        "ValidationError",
    ];
    let text = chain_text(error);
    let refused = match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => true,
        _ => REFUSALS.iter().any(|code| text.contains(code)),
    };
    if refused {
        object_store::Error::Unauthenticated { path, source: text.into() }
    } else {
        object_store::Error::Generic { store: "S3", source: format!("{path}: {text}").into() }
    }
}

/// An error with its causes, in one line: the SDK keeps the one that matters innermost, and lists what it tried.
fn chain_text(error: &CredentialsError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The region that the environment, the profile or the instance metadata name. Waits for the answer, on a thread of
/// its own: components are built outside of any task, and a client cannot be without its region.
pub(super) fn region(profile: Option<&str>) -> Option<String> {
    let look_up = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let config = runtime.block_on(loader(profile).no_credentials().load());
        config.region().map(ToString::to_string)
    };
    std::thread::scope(|scope| scope.spawn(look_up).join()).ok().flatten()
}

/// The client of STS, SSO and SQS.
pub(crate) fn http_client() -> SharedHttpClient {
    // Not `build_https`: it knows no proxy, and the S3 client goes through that of the environment.
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build()
    })
}

fn loader(profile: Option<&str>) -> ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client());
    match profile {
        Some(profile) => loader.profile_name(profile),
        None => loader,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(id: &str, ends: Option<SystemTime>) -> Result<Credentials, CredentialsError> {
        Ok(Credentials::new(id, "secret", Some("token".to_owned()), ends, "test"))
    }

    async fn get(kept: &mut Kept, now: SystemTime, found: Result<Credentials, CredentialsError>) -> String {
        kept.get(now, async { found }).await.unwrap().key_id.clone()
    }

    #[tokio::test]
    async fn credentials_are_kept_until_shortly_before_they_end() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let hour = Duration::from_secs(3600);
        let mut kept = Kept::default();
        assert_eq!(get(&mut kept, start, credentials("first", Some(start + hour))).await, "first");
        let due = start + hour - EARLY;
        let just_before = due - Duration::from_secs(1);
        assert_eq!(get(&mut kept, just_before, credentials("unused", None)).await, "first");
        assert_eq!(get(&mut kept, due, credentials("second", None)).await, "second");
        let later = due + LOOK_AGAIN;
        assert_eq!(
            get(&mut kept, later - Duration::from_secs(1), credentials("unused", None)).await,
            "second"
        );
        assert_eq!(get(&mut kept, later, credentials("third", None)).await, "third");
    }

    #[tokio::test]
    async fn old_credentials_serve_while_they_last_when_a_renewal_fails() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ends = start + Duration::from_secs(3600);
        let lost = || CredentialsError::provider_error("connection reset");
        let mut kept = Kept::default();
        get(&mut kept, start, credentials("first", Some(ends))).await;
        assert_eq!(get(&mut kept, ends - EARLY, Err(lost())).await, "first");
        // No second attempt right away, but one before they end.
        assert_eq!(get(&mut kept, ends - EARLY, credentials("early", None)).await, "first");
        assert_eq!(get(&mut kept, ends - EARLY + RETRY, Err(lost())).await, "first");
        assert!(kept.get(ends, async { Err(lost()) }).await.is_err());
        assert_eq!(get(&mut kept, ends, credentials("second", None)).await, "second");
    }

    #[test]
    fn a_refusal_is_told_from_a_lost_connection() {
        let lost = store_error("role".into(), &CredentialsError::provider_error("connection reset"));
        assert!(matches!(lost, object_store::Error::Generic { .. }), "{lost}");
        for refusal in [
            CredentialsError::provider_error("service error: AccessDenied: not yours"),
            CredentialsError::not_loaded("nothing found"),
        ] {
            let refused = store_error("role".into(), &refusal);
            assert!(matches!(refused, object_store::Error::Unauthenticated { .. }), "{refused}");
        }
    }
}
