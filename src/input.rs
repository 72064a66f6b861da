//! The contract of an input: reads whole records, and is told when they are durable.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;

use crate::budget::Budget;
use crate::chunk::{Chunk, Partition, Position};
use crate::component::{BuildError, Probe};
use crate::decode::Gaps;
use crate::state::{State, StateError};
use crate::time::Millis;

pub mod bucket;
pub mod kafka;
pub mod system_table;

/// What a read gave.
#[derive(Debug)]
pub enum Read {
    /// The next records of a partition.
    Chunk(Chunk),
    /// Something could not be read; it will be tried again and the rest goes on.
    Trouble {
        /// Where.
        partition: Partition,
        /// What and why, and what a user can do.
        error: InputError,
    },
    /// A look at the source came to its end, and a part of it cannot be read until a human acts; the rest goes on.
    Withheld(InputError),
    /// A look at the source came to its end and the source can be read. The next read waits by itself.
    Idle,
    /// All there is has been read (`--once`).
    End,
}

/// Why an input cannot read.
#[derive(Debug, Error)]
pub enum InputError {
    /// Passes by itself: a time-out, an overloaded store.
    #[error("{action}: {source}")]
    Transient {
        /// What was tried, on what.
        action: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Passes by itself, and the source said when to come back.
    #[error("{action}: {source}")]
    Busy {
        /// What was tried, on what.
        action: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// The wait it asked for.
        after: Duration,
    },
    /// Stays until a human changes something: credentials, a permission, a name.
    #[error("{action}: {source}; {remedy}")]
    Refused {
        /// What was tried, on what.
        action: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What to do, naming the configuration key.
        remedy: String,
    },
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

impl InputError {
    /// True if waiting alone does not help.
    pub fn needs_a_human(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// How long the source asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => Some(*after),
            _ => None,
        }
    }
}

/// What lies ahead of the reader, as far as it is known: for a progress bar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Objects found and not yet read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects being read or waiting for their acknowledgement.
    pub open: u64,
}

/// Reads records. Shared by the reader task and the committer, hence `&self`.
#[async_trait]
pub trait Input: Send + Sync {
    /// Reads the next whole records. Within a partition chunks come in order. Called by one task; dropped unfinished
    /// only at shutdown.
    ///
    /// # Errors
    /// [`InputError`] if nothing at all can be read for now; the engine waits and calls again.
    async fn read(&self) -> Result<Read, InputError>;

    /// Told once a position is durable.
    async fn committed(&self, partition: &Partition, position: &Position);

    /// Told once the pipeline has ended and nothing more will be committed: takes leave of whoever has to know.
    async fn close(&self) {}

    /// Looks whether the source can be read, without reading on or committing.
    async fn probe(&self) -> Probe {
        Probe::Unknown
    }

    /// What lies ahead.
    fn backlog(&self) -> Backlog {
        Backlog::default()
    }
}

/// A pipeline's share of the state, as its input sees it.
#[derive(Clone)]
pub struct Resume {
    state: Arc<dyn State>,
    namespace: Arc<str>,
}

impl std::fmt::Debug for Resume {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Resume({})", self.namespace)
    }
}

impl Resume {
    /// The state below `<input>/<output>`.
    pub fn new(state: Arc<dyn State>, namespace: &str) -> Self {
        Self { state, namespace: namespace.into() }
    }

    /// The pipeline this belongs to, `<input>/<output>`.
    pub fn pipeline(&self) -> &str {
        &self.namespace
    }

    /// The committed position of a partition.
    ///
    /// # Errors
    /// [`StateError`] if the state cannot be read.
    pub async fn position(&self, partition: &Partition) -> Result<Option<Position>, StateError> {
        let found = self.positions(vec![partition.clone()]).await?;
        Ok(found.into_iter().next().map(|(_, position)| position))
    }

    /// The committed positions of those of the partitions that have one, in the order they are asked for.
    ///
    /// # Errors
    /// [`StateError`] if the state cannot be read.
    pub async fn positions(
        &self,
        partitions: Vec<Partition>,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        self.state.positions(&self.namespace, partitions).await
    }

    /// The committed positions of all partitions from `first` to `last`, both included, in order of their names.
    ///
    /// # Errors
    /// [`StateError`] if the state cannot be read.
    pub async fn range(&self, first: &str, last: &str) -> Result<Vec<(Partition, Position)>, StateError> {
        self.state.range(&self.namespace, first, last).await
    }

    /// What was remembered for a partition, oldest first; only the concatenation is kept, not where notes end.
    ///
    /// # Errors
    /// [`StateError`] if the state cannot be read.
    pub async fn notes(&self, partition: &Partition) -> Result<Vec<Bytes>, StateError> {
        self.state.notes(&self.namespace, partition).await
    }

    /// A secret of this state directory, random and lasting: the key of fingerprints.
    ///
    /// # Errors
    /// [`StateError`] if the state cannot be read.
    pub async fn key(&self) -> Result<[u8; 192], StateError> {
        self.state.key().await
    }
}

/// What the inputs of a process have in common, one value per type: a kind of input keeps there what its pipelines must
/// not have each for themselves, such as the only receiver of a queue.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>);

impl Shared {
    /// The value of this type, made by whoever asks first.
    pub fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = values.entry(TypeId::of::<T>()).or_insert_with(|| Arc::<T>::default());
        Arc::clone(value).downcast().unwrap_or_default()
    }
}

/// What an input is built with, besides its own configuration.
#[derive(Clone, Debug)]
pub struct InputContext {
    /// Its name in the configuration.
    pub name: String,
    /// Where it left off.
    pub resume: Resume,
    /// Bytes it may hold.
    pub budget: Budget,
    /// True for `--once`: end when all there is has been read.
    pub once: bool,
    /// Leave out objects that were changed at this time or later: where a state is made anew, they are shipped.
    pub until: Option<Millis>,
    /// What it has in common with the other inputs of the process.
    pub shared: Shared,
    /// Directory that relative paths start from.
    pub base: PathBuf,
    /// The time of day.
    pub clock: fn() -> Millis,
}

/// A kind of input: one row of the registry.
#[derive(Clone, Copy, Debug)]
pub struct InputKind {
    /// Value of `type`.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Schema of its configuration.
    pub schema: fn() -> schemars::Schema,
    /// Checks a configuration without touching the network, and describes what it reads in a line.
    pub check: fn(Value) -> Result<String, BuildError>,
    /// What its configuration says in place of its records.
    pub gaps: fn(&Value) -> Gaps,
    /// Builds it.
    pub build: fn(Value, InputContext) -> Result<Box<dyn Input>, BuildError>,
}
