//! The secrets of a run, as its configuration and its environment name them, and the places where none of them may be.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// Keys whose value is a secret, or the beginning of the names of such variables.
const KEYS: [&str; 12] = [
    "token",
    "api_key",
    "password",
    "secret_access_key",
    "session_token",
    "client_secret",
    "access_key",
    "sas",
    "connection_string",
    "bearer_token",
    "account_key",
    "key",
];
/// Shorter ones are words of the log.
const SHORTEST: usize = 5;

/// The secrets of one run.
#[derive(Debug)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// What a configuration file and these variables hold, and the files that it names.
    pub(crate) fn of(config: &Path, environment: &[(&str, &str)]) -> Self {
        let text = std::fs::read_to_string(config).unwrap();
        let tree: toml::Table = text.parse().unwrap();
        let mut found = Vec::new();
        gather(&toml::Value::Table(tree), "", config.parent().unwrap(), &mut found);
        for (name, value) in environment {
            if is_secret(&name.to_ascii_lowercase()) {
                found.push((*value).to_owned());
            }
        }
        // A connection string is not said whole; what counts is the key in it.
        let parts = found.iter().flat_map(|secret| secret.split(';'));
        let keys = parts.filter_map(|part| part.split_once("Key=")).map(|(_, key)| key.to_owned());
        found.extend(keys.collect::<Vec<_>>());
        found.retain(|secret| secret.len() >= SHORTEST && secret != "secret");
        Self(found)
    }

    /// Fails if one of them is there.
    pub(crate) fn are_not_in(&self, bytes: &[u8], place: &str) {
        let text = String::from_utf8_lossy(bytes);
        for secret in &self.0 {
            assert!(!text.contains(secret.as_str()), "a secret is in {place}: {text}");
        }
    }

    /// Fails if one of them is in a file of this directory.
    pub(crate) fn are_in_no_file_of(&self, directory: &Path) {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.are_in_no_file_of(&path);
            } else {
                self.are_not_in(&std::fs::read(&path).unwrap_or_default(), &path.display().to_string());
            }
        }
    }

    /// Fails if the server, whose address the log tells, shows one of them.
    pub(crate) fn are_not_shown(&self, log: &str) {
        let Some((_, rest)) = log.split_once("listening on http://") else { return };
        let address: String =
            rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
        for path in ["/metrics", "/status", "/readyz"] {
            let Ok(mut stream) = TcpStream::connect(&address) else { return };
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut shown = Vec::new();
            let asked = write!(stream, "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
            let _ = asked.and_then(|()| stream.read_to_end(&mut shown));
            self.are_not_in(&shown, path);
        }
    }
}

fn is_secret(key: &str) -> bool {
    KEYS.iter().any(|known| key == *known || key.ends_with(&format!("_{known}")))
}

/// Walks a table: `token = "…"`, `token = { file = "…" }`.
fn gather(value: &toml::Value, key: &str, base: &Path, found: &mut Vec<String>) {
    match value {
        toml::Value::String(text) if is_secret(key) => found.push(text.clone()),
        toml::Value::Table(table) if is_secret(key) => {
            if let Some(file) = table.get("file").and_then(toml::Value::as_str) {
                let text = std::fs::read_to_string(base.join(file)).unwrap_or_default();
                found.push(text.trim().to_owned());
            }
        }
        toml::Value::Table(table) => table.iter().for_each(|(key, value)| gather(value, key, base, found)),
        toml::Value::Array(items) => items.iter().for_each(|item| gather(item, key, base, found)),
        _ => {}
    }
}
