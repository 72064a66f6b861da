//! How requests authenticate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::Config;
#[cfg(feature = "aws")]
use super::sigv4::Signer;
use crate::component::BuildError;
use crate::http::header;
use crate::secret::Rotating;

pub(super) enum Login {
    Anonymous,
    ApiKey(Rotating),
    Basic(String, Rotating),
    Bearer(Rotating),
    #[cfg(feature = "aws")]
    Aws(Signer),
}

/// Why a request cannot be made. Holds no secret.
#[derive(Debug)]
pub(super) enum NoLogin {
    /// The credentials are not where the configuration says, or were refused by whom they were asked of.
    Refused(String),
    /// Whom they were asked of did not answer.
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "only AWS asks somebody"))]
    Unreachable(String),
}

impl Login {
    /// Checks that it is one; `address` is that of the cluster.
    pub(super) fn of(config: &Config, address: &str) -> Result<Self, BuildError> {
        if config.aws.is_some() {
            return Self::of_aws(config, address);
        }
        let login = match (&config.api_key, &config.username, &config.password, &config.bearer_token) {
            (None, None, None, None) => Self::Anonymous,
            (Some(key), None, None, None) => Self::ApiKey(Rotating::new(key.clone())),
            (None, Some(user), Some(password), None) => {
                Self::Basic(user.clone(), Rotating::new(password.clone()))
            }
            (None, None, None, Some(token)) => Self::Bearer(Rotating::new(token.clone())),
            (None, Some(_), None, None) => {
                return Err(BuildError::new("password", "is missing: username needs it"));
            }
            (None, None, Some(_), None) => {
                return Err(BuildError::new("username", "is missing: password needs it"));
            }
            _ => return Err(BuildError::new("", ONE_LOGIN)),
        };
        login.written()?;
        Ok(login)
    }

    fn of_aws(config: &Config, address: &str) -> Result<Self, BuildError> {
        let others = [&config.api_key, &config.password, &config.bearer_token];
        if config.username.is_some() || others.iter().any(|secret| secret.is_some()) {
            return Err(BuildError::new("aws", ONE_LOGIN));
        }
        #[cfg(feature = "aws")]
        if let Some(settings) = &config.aws {
            return Ok(Self::Aws(Signer::new(settings, address)?));
        }
        let message = format!("this build lacks the feature `aws` and cannot sign requests to {address}");
        Err(BuildError::new("aws", message))
    }

    /// The secret that may be in the middle of its rotation; AWS rotates its keys itself.
    pub(super) fn secret(&self) -> Option<&Rotating> {
        match self {
            Self::ApiKey(secret) | Self::Basic(_, secret) | Self::Bearer(secret) => Some(secret),
            _ => None,
        }
    }

    /// Adds what a request needs; gives the secrets in it, that of [`Self::secret`] first.
    pub(super) async fn add_to(
        &self,
        headers: &mut HeaderMap,
        method: &Method,
        url: &str,
        body: &[u8],
    ) -> Result<Vec<String>, NoLogin> {
        #[cfg(feature = "aws")]
        if let Self::Aws(signer) = self {
            let now = std::time::SystemTime::now();
            return signer.add_to(method.as_str(), url, headers, body, now).await;
        }
        #[cfg(not(feature = "aws"))]
        let _ = (method, url, body);
        let written = self.written().map_err(|error| NoLogin::Refused(error.to_string()))?;
        let Some((value, secrets)) = written else { return Ok(Vec::new()) };
        headers.insert(AUTHORIZATION, value);
        Ok(secrets.to_vec())
    }

    /// The header that is the same for every request, and the secrets in it.
    fn written(&self) -> Result<Option<(HeaderValue, [String; 2])>, BuildError> {
        let (key, secret) = match self {
            Self::ApiKey(secret) => ("api_key", secret),
            Self::Basic(_, secret) => ("password", secret),
            Self::Bearer(secret) => ("bearer_token", secret),
            _ => return Ok(None),
        };
        let secret = secret.reveal().map_err(|error| BuildError::new(key, error))?;
        let (scheme, credentials) = match self {
            Self::Basic(user, _) => ("Basic", STANDARD.encode(format!("{user}:{secret}"))),
            Self::Bearer(_) => ("Bearer", secret.clone()),
            _ if secret.contains(':') => ("ApiKey", STANDARD.encode(&secret)),
            _ => ("ApiKey", secret.clone()),
        };
        let (_, value) = header(key, "authorization", &format!("{scheme} {credentials}"), true)?;
        Ok(Some((value, [secret, credentials])))
    }
}

const ONE_LOGIN: &str = "keep one of api_key, username with password, bearer_token, and aws";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::component::parse;

    #[test]
    fn each_way_to_log_in_makes_its_header() {
        for (table, expected) in [
            (json!({"api_key": "abc=="}), "ApiKey abc=="),
            (json!({"api_key": "id:key"}), "ApiKey aWQ6a2V5"),
            (json!({"username": "u", "password": "p"}), "Basic dTpw"),
            (json!({"bearer_token": "b"}), "Bearer b"),
        ] {
            let mut table = table;
            table["url"] = json!("https://es");
            let login = Login::of(&parse(table).unwrap(), "https://es").unwrap();
            let (value, _) = login.written().unwrap().unwrap();
            assert_eq!(value, expected);
            assert!(value.is_sensitive());
        }
    }
}
