//! How requests authenticate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap};

use super::Config;
use crate::component::BuildError;
use crate::http::header;
use crate::secret::Secret;

pub(super) enum Login {
    Anonymous,
    ApiKey(Secret),
    Basic(String, Secret),
    Bearer(Secret),
}

impl Login {
    pub(super) fn of(config: &Config) -> Result<Self, BuildError> {
        match (&config.api_key, &config.username, &config.password, &config.bearer_token) {
            (None, None, None, None) => Ok(Self::Anonymous),
            (Some(key), None, None, None) => Ok(Self::ApiKey(key.clone())),
            (None, Some(user), Some(password), None) => Ok(Self::Basic(user.clone(), password.clone())),
            (None, None, None, Some(token)) => Ok(Self::Bearer(token.clone())),
            (None, Some(_), None, None) => Err(BuildError::new("password", "is missing: username needs it")),
            (None, None, Some(_), None) => Err(BuildError::new("username", "is missing: password needs it")),
            _ => Err(BuildError::new("", "keep one of api_key, username with password, and bearer_token")),
        }
    }

    /// Adds the header; gives the secrets in it.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) -> Result<Vec<String>, BuildError> {
        let (key, secret) = match self {
            Self::Anonymous => return Ok(Vec::new()),
            Self::ApiKey(secret) => ("api_key", secret),
            Self::Basic(_, secret) => ("password", secret),
            Self::Bearer(secret) => ("bearer_token", secret),
        };
        let secret = secret.reveal().map_err(|error| BuildError::new(key, error))?;
        let (scheme, credentials) = match self {
            Self::ApiKey(_) if secret.contains(':') => ("ApiKey", STANDARD.encode(&secret)),
            Self::Basic(user, _) => ("Basic", STANDARD.encode(format!("{user}:{secret}"))),
            Self::Bearer(_) => ("Bearer", secret.clone()),
            Self::ApiKey(_) | Self::Anonymous => ("ApiKey", secret.clone()),
        };
        let (_, value) = header(key, "authorization", &format!("{scheme} {credentials}"), true)?;
        headers.insert(AUTHORIZATION, value);
        Ok(vec![secret, credentials])
    }
}

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
            let mut headers = HeaderMap::new();
            Login::of(&parse(table).unwrap()).unwrap().add_to(&mut headers).unwrap();
            assert_eq!(headers[AUTHORIZATION], expected);
            assert!(headers[AUTHORIZATION].is_sensitive());
        }
    }
}
