//! Secrets: named in the configuration, read from where they are kept, re-read when they change, never printed.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use thiserror::Error as ThisError;

/// A secret. `Debug` shows where it comes from and nothing of it; there is no `Display`.
#[derive(Clone)]
pub struct Secret(Arc<Source>);

enum Source {
    Plain(String),
    Env(String),
    File { path: PathBuf, cached: Mutex<Option<Cached>> },
    Credential(String),
}

struct Cached {
    modified: Option<SystemTime>,
    length: u64,
    text: String,
}

/// Why a secret cannot be had. Holds names and paths, never the secret.
#[derive(Debug, ThisError)]
pub enum SecretError {
    /// The variable is missing or empty.
    #[error("the environment variable {name} is not set; set it for the service, or use {{ file = \"…\" }}")]
    Environment {
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read the secret file {path}: {source}; create it, or make it readable for this user")]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file or variable holds nothing.
    #[error("the secret in {place} is empty; put it there")]
    Empty {
        /// Where it was looked for.
        place: String,
    },
    /// systemd passed no credentials.
    #[error(
        "no systemd credential {name}: CREDENTIALS_DIRECTORY is not set; add LoadCredential={name}:/path to the unit"
    )]
    Credential {
        /// Its name.
        name: String,
    },
}

impl Secret {
    /// A secret that is known already (tests, URLs with a user part).
    pub fn plain(text: &str) -> Self {
        Self(Arc::new(Source::Plain(text.to_owned())))
    }

    /// A secret kept in a file; white space at its end does not count.
    pub fn file(path: &Path) -> Self {
        Self(Arc::new(Source::File { path: path.to_owned(), cached: Mutex::new(None) }))
    }

    /// The secret as it stands now. A file is read again when its time or length changed.
    ///
    /// # Errors
    /// [`SecretError`] if it is not where the configuration says.
    pub fn reveal(&self) -> Result<String, SecretError> {
        match &*self.0 {
            Source::Plain(text) if text.trim().is_empty() => {
                Err(SecretError::Empty { place: "the configuration".to_owned() })
            }
            Source::Plain(text) => Ok(text.clone()),
            Source::Env(name) => std::env::var(name)
                .ok()
                .filter(|text| !text.trim().is_empty())
                .map(|text| text.trim().to_owned())
                .ok_or_else(|| SecretError::Environment { name: name.clone() }),
            Source::File { path, cached } => {
                let mut cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
                read_file(path, &mut cached)
            }
            Source::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::Credential { name: name.clone() })?;
                read_file(&Path::new(&directory).join(name), &mut None)
            }
        }
    }

    /// True if the secret itself stands in the configuration.
    pub fn is_plain(&self) -> bool {
        matches!(&*self.0, Source::Plain(_))
    }
}

fn read_file(path: &Path, cached: &mut Option<Cached>) -> Result<String, SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    let (modified, length) = (metadata.modified().ok(), metadata.len());
    if let Some(known) = cached
        && known.modified == modified
        && known.length == length
    {
        return Ok(known.text.clone());
    }
    let text = std::fs::read_to_string(path).map_err(failed)?.trim_end().to_owned();
    if text.is_empty() {
        return Err(SecretError::Empty { place: path.display().to_string() });
    }
    *cached = Some(Cached { modified, length, text: text.clone() });
    Ok(text)
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Source::Plain(_) => out.write_str("Secret(in the configuration)"),
            Source::Env(name) => write!(out, "Secret(env {name})"),
            Source::File { path, .. } => write!(out, "Secret(file {})", path.display()),
            Source::Credential(name) => write!(out, "Secret(credential {name})"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reference {
    File(PathBuf),
    Env(String),
    Credential(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelled {
    Plain(String),
    Reference(Reference),
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The reason serde gives could repeat the value: say what is allowed instead.
        let spelled = Spelled::deserialize(deserializer).map_err(|_| {
            D::Error::custom(
                "a secret is { file = \"/path\" }, { env = \"NAME\" }, { credential = \"name\" } or a text",
            )
        })?;
        Ok(Self(Arc::new(match spelled {
            Spelled::Plain(text) => Source::Plain(text),
            Spelled::Reference(Reference::Env(name)) => Source::Env(name),
            Spelled::Reference(Reference::Credential(name)) => Source::Credential(name),
            Spelled::Reference(Reference::File(path)) => Source::File { path, cached: Mutex::new(None) },
        })))
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |key: &str| {
            json_schema!({
                "type": "object", "properties": { key: { "type": "string" } }, "required": [key],
                "additionalProperties": false
            })
        };
        json_schema!({ "oneOf": [{ "type": "string" }, one("file"), one("env"), one("credential")] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_read_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let secret = Secret::file(&path);
        assert_eq!(secret.reveal().unwrap(), "first");
        std::fs::write(&path, "the second\n").unwrap();
        assert_eq!(secret.reveal().unwrap(), "the second");
        std::fs::write(&path, "\n").unwrap();
        assert!(secret.reveal().unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn an_empty_secret_is_none_wherever_it_stands() {
        let plain: Secret = serde_json::from_str("\" \"").unwrap();
        let error = plain.reveal().unwrap_err().to_string();
        assert!(error.contains("is empty") && error.contains("configuration"), "{error}");
    }

    #[test]
    fn neither_debug_nor_errors_show_a_secret() {
        let plain: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert!(!format!("{plain:?}").contains("hunter2"));
        let error = serde_json::from_str::<Secret>(r#"{"value":"hunter2"}"#).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.contains("env"), "{error}");
        let missing: Secret = serde_json::from_str(r#"{"env":"AUDITFERRY_NO_SUCH_VARIABLE"}"#).unwrap();
        assert!(missing.reveal().unwrap_err().to_string().contains("AUDITFERRY_NO_SUCH_VARIABLE"));
    }
}
