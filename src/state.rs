//! The contract of the state: positions that survive, committed only when what lies before them is safe.

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::chunk::{Note, Partition, Position};

pub mod none;
pub mod sqlite;

/// A step forward of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The partition.
    pub partition: Partition,
    /// Where it stands now.
    pub position: Position,
    /// What becomes of its notes.
    pub note: Note,
}

/// Why the state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The directory cannot be made or written.
    #[error("cannot use state_dir {path}: {source}; make it writable for this user or name another")]
    Directory {
        /// The directory.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process holds it.
    #[error(
        "state_dir {path} is in use by another auditferry; stop that one, or give this one its own state_dir"
    )]
    InUse {
        /// The directory.
        path: String,
    },
    /// It was written by a newer release.
    #[error("the state in {path} is of version {found}, this release knows {known}; upgrade auditferry")]
    TooNew {
        /// The database.
        path: String,
        /// Version found.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// The database is no database any more.
    #[error(
        "the state in {path} is damaged: {source}; `auditferry state verify` tells more, `auditferry state rebuild` makes a \
         new one of what lies in the bucket"
    )]
    Damaged {
        /// The database.
        path: String,
        /// Why it cannot be read.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database failed.
    #[error("cannot {action} the state in {path}: {source}; {remedy}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// The database.
        path: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What to do.
        remedy: &'static str,
    },
}

/// Keeps positions. Namespaces are `<input>/<output>`.
#[async_trait]
pub trait State: Send + Sync {
    /// Positions of the partitions from `first` to `last`, both included, in order of their names.
    async fn range(
        &self,
        namespace: &str,
        first: &str,
        last: &str,
    ) -> Result<Vec<(Partition, Position)>, StateError>;

    /// Positions of those of the partitions that have one, in the order they are asked for.
    async fn positions(
        &self,
        namespace: &str,
        partitions: Vec<Partition>,
    ) -> Result<Vec<(Partition, Position)>, StateError>;

    /// The notes of a partition, oldest first. Notes may come merged: only their concatenation is kept.
    async fn notes(&self, namespace: &str, partition: &Partition) -> Result<Vec<Bytes>, StateError>;

    /// Makes changes and adds to counters, all or none; returns when they are on disk.
    async fn commit(
        &self,
        namespace: &str,
        changes: Vec<Change>,
        counts: Vec<(&'static str, u64)>,
    ) -> Result<(), StateError>;

    /// The counters of a namespace: totals over all runs.
    async fn counters(&self, namespace: &str) -> Result<Vec<(String, u64)>, StateError>;

    /// A random key that was made with the state and stays with it.
    async fn key(&self) -> Result<[u8; 192], StateError>;
}
