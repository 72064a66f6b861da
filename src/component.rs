//! How a component is configured and built: its table row, and what can be wrong with its configuration.

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// What is wrong with a component's configuration, and where.
#[derive(Debug, Error)]
#[error("{}{message}", prefix(key))]
pub struct BuildError {
    /// Path of the key below the component's own table; empty for the table itself.
    pub key: String,
    /// What is wrong and what is allowed, in a sentence.
    pub message: String,
}

fn prefix(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

/// What came of asking the other side whether it would work with us, without sending or committing anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It would: what was seen, and what only events can show.
    Ready(String),
    /// It would not: why, and what to do, in a sentence.
    Failed(String),
    /// It cannot be asked.
    Unknown,
}

impl BuildError {
    /// An error of one key.
    pub fn new(key: &str, message: impl ToString) -> Self {
        Self { key: key.to_owned(), message: message.to_string() }
    }
}

/// Reads a component's `Config` out of its table.
///
/// # Errors
/// [`BuildError`] with the path of the key that does not fit.
pub fn parse<C: DeserializeOwned>(table: Value) -> Result<C, BuildError> {
    serde_path_to_error::deserialize(table).map_err(|error| {
        let key = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        BuildError { key, message: error.inner().to_string() }
    })
}
