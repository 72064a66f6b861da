//! What a bucket is made of, and why it could not be made.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::layout::Layout;
use super::rounds::Rewrite;
use crate::time::{Date, Millis};

/// What a bucket is made of. The same options give the same bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Paths and record shape.
    pub layout: Layout,
    /// Workspaces; in a delivery bucket of two or more the first one is the account's folder, `workspaceId=0`.
    pub workspaces: u32,
    /// Days, ending at `end_date`.
    pub days: u32,
    /// Lines over all objects.
    pub events: u64,
    /// Objects per workspace and day; `None` is the layout's usual number.
    pub objects_per_day: Option<u32>,
    /// Rounds after the first one.
    pub overwrite_rounds: u32,
    /// What the rounds do, one after the other; empty is what the layout's writer does.
    pub rewrites: Vec<Rewrite>,
    /// Of a million lines, how many repeat the line before them, byte for byte: up to 100,000.
    pub repeats: u32,
    /// Another seed, other events.
    pub seed: u64,
    /// The last day.
    pub end_date: Date,
    /// How late it is on the last day: its events lie before that, as close together as that takes. `None`, and any time
    /// that is not on it: the day is over.
    pub now: Option<Millis>,
}

impl Options {
    /// A delivery bucket that is written once.
    pub fn new(workspaces: u32, days: u32, events: u64, end_date: Date) -> Self {
        Self {
            layout: Layout::DatabricksDelivery,
            workspaces,
            days,
            events,
            objects_per_day: None,
            overwrite_rounds: 0,
            rewrites: Vec::new(),
            repeats: 0,
            seed: 1,
            end_date,
            now: None,
        }
    }
}

/// Why a bucket could not be made.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// An option is out of its range.
    #[error("{option} must be {allowed}, not {found}")]
    Option {
        /// Its flag.
        option: &'static str,
        /// The range.
        allowed: String,
        /// What was given.
        found: String,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The summary could not be printed.
    #[error("cannot print the summary")]
    Print(#[source] io::Error),
}

pub(super) fn within(option: &'static str, found: u32, least: u32, most: u32) -> Result<(), GenerateError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(out_of_range(option, &format!("{least} to {most}"), &found))
}

pub(super) fn out_of_range(option: &'static str, allowed: &str, found: &impl ToString) -> GenerateError {
    GenerateError::Option { option, allowed: allowed.to_owned(), found: found.to_string() }
}
