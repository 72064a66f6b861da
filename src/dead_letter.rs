//! The contract of the dead letters: what no collector will take, kept with its reason until somebody looks.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub mod file;

/// A record that was not delivered, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// In one word: `not_json`, `too_long`, `rejected`, …
    pub reason: String,
    /// The collector's or our own words.
    pub detail: String,
    /// Where it came from.
    pub origin: DeadLetterOrigin,
    /// The record as it was read; its first bytes where `truncated`.
    pub record: Bytes,
    /// True if the record is longer than what is kept.
    pub truncated: bool,
}

/// Where a dead letter's record lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeadLetterOrigin {
    /// Object, topic or table.
    pub object: String,
    /// Byte offset of the record (of its chunk, where the record was copied).
    pub offset: u64,
    /// Line, from 0; in a topic, the message's offset.
    pub line: u64,
    /// Which one of several equal records.
    pub occurrence: u32,
    /// Workspace the path names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Cloud it was read from: `aws`, `gcp` or `azure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
}

/// Why a dead letter cannot be kept.
#[derive(Debug, Error)]
#[error("cannot write dead letters to {path}: {source}; free space or make it writable, the pipeline waits")]
pub struct DeadLetterError {
    /// The file.
    pub path: String,
    /// What the system said.
    pub source: std::io::Error,
}

/// Keeps dead letters.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Returns when the letters are on disk.
    async fn keep(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError>;
}
