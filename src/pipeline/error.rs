//! Why a pipeline ends before its time.

use std::io;

use thiserror::Error;

use crate::input::InputError;

/// Why a pipeline ended before its time. A running service only ever waits; `--once` gives up.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The input cannot be read.
    #[error("{pipeline}: {source}")]
    Input {
        /// `<input>/<output>`
        pipeline: String,
        /// Why.
        source: InputError,
    },
    /// The collector takes nothing.
    #[error("{pipeline}: {message}")]
    Collector {
        /// `<input>/<output>`
        pipeline: String,
        /// What it said, and what to do.
        message: String,
    },
    /// The disk under the state or the dead letters refuses.
    #[error("{pipeline}: {message}")]
    Disk {
        /// `<input>/<output>`
        pipeline: String,
        /// What it refuses, and what to do.
        message: String,
    },
    /// A body, or records, cannot be compressed or taken apart again: only memory is involved, so this is a defect.
    #[error(
        "cannot compress what is under way, or take it apart again: {0}; this is a defect, please report it"
    )]
    Compress(io::Error),
    /// A task panicked.
    #[error("a task of the pipeline failed: {0}; this is a defect, please report it")]
    Task(#[from] tokio::task::JoinError),
    /// What was under way when it was stopped will be read again.
    #[error("{pipeline}: not everything was delivered {why}; the rest is read again at the next start")]
    Unfinished {
        /// `<input>/<output>`
        pipeline: String,
        /// Until when, and what for.
        why: &'static str,
    },
    /// What a single run did not come to before it was stopped will be read by the next one.
    #[error("{pipeline}: stopped before everything was read; the rest is read at the next start")]
    Stopped {
        /// `<input>/<output>`
        pipeline: String,
    },
}

impl PipelineError {
    /// The grace period of a stop is over.
    pub(crate) fn overdue(pipeline: &str) -> Self {
        Self::Unfinished { pipeline: pipeline.to_owned(), why: "within the grace period" }
    }

    /// It was stopped while the collector took nothing.
    pub(crate) fn held(pipeline: &str) -> Self {
        let why = "before the stop, since the output waits for a human";
        Self::Unfinished { pipeline: pipeline.to_owned(), why }
    }
}
