//! A file that events are appended to, a line each, or standard output.
//!
//! A regular file is on disk before its events count as delivered. What a failed write or a crash leaves of a batch
//! was not counted, so it is cut off again. Two pipelines may share a file: a lock keeps their batches apart.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe, parse};
use crate::compress::Encoding;
use crate::format::FormatName;
use crate::output::{HoldReason, Output, OutputContext, OutputDefaults, OutputKind, Verdict};

mod opened;

use opened::Opened;

/// A file or standard output.
pub const KIND: OutputKind = OutputKind {
    name: "file",
    about: "A file or standard output (stdout), a line per event",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        compression: Encoding::None,
        compressions: &[Encoding::None],
        max_bytes: 1_000_000,
        max_events: 10_000,
        most: None,
        max_age: Duration::from_millis(200),
        in_flight: 1,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// `type = "file"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// File to append to, created with its directories if it is not there; `"-"` is standard output. Rotate it by
    /// renaming it and sending SIGHUP.
    path: PathBuf,
}

fn build(table: Value, _: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Ok(Box::new(FileOutput::new(parse(table)?)?))
}

struct FileOutput {
    target: Arc<Target>,
}

enum Target {
    Stdout,
    Path { path: PathBuf, open: Mutex<Option<Opened>> },
}

impl FileOutput {
    fn new(config: Config) -> Result<Self, BuildError> {
        if config.path.as_os_str().is_empty() {
            return Err(BuildError::new("path", "is empty; write a path, or \"-\" for standard output"));
        }
        if config.path.is_dir() {
            let message = format!("{} is a directory; write the path of a file", config.path.display());
            return Err(BuildError::new("path", message));
        }
        let target = match config.path.as_os_str() == "-" {
            true => Target::Stdout,
            false => Target::Path { path: config.path, open: Mutex::new(None) },
        };
        Ok(Self { target: Arc::new(target) })
    }
}

#[async_trait]
impl Output for FileOutput {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, request: &Request) -> Verdict {
        let (target, body) = (Arc::clone(&self.target), request.body.clone());
        let written = tokio::task::spawn_blocking(move || target.append(&body)).await;
        match written.unwrap_or_else(|stopped| Err(io::Error::other(stopped))) {
            Ok(()) => Verdict::Accepted { slow_down: false },
            Err(error) => Verdict::hold(HoldReason::Local, self.target.complaint(&error)),
        }
    }

    async fn probe(&self) -> Probe {
        let Target::Path { path, .. } = &*self.target else {
            return Probe::Ready("standard output".to_owned());
        };
        if opened::is_pipe(path) {
            // Opening it would wait for a reader, and tell the reader of an end.
            return Probe::Ready("a named pipe; whether somebody reads it, only events show".to_owned());
        }
        match OpenOptions::new().append(true).open(path) {
            Ok(_) => Probe::Ready("the file can be written".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Probe::Ready("the file is made when the first event comes".to_owned())
            }
            Err(error) => Probe::Failed(self.target.complaint(&error)),
        }
    }

    async fn reopen(&self) {
        let target = Arc::clone(&self.target);
        // A failure to close is of no use to anybody: the next batch opens the file anew.
        let _ = tokio::task::spawn_blocking(move || target.close()).await;
    }
}

impl Target {
    fn append(&self, body: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(body)?;
                stdout.flush()
            }
            Self::Path { path, open } => {
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                let opened = match open.take().filter(Opened::has_a_name) {
                    Some(opened) => opened,
                    None => Opened::at(path)?,
                };
                // Kept only if it worked: after a failure the file is opened, and mended, anew.
                opened.append(body)?;
                *open = Some(opened);
                Ok(())
            }
        }
    }

    fn close(&self) {
        if let Self::Path { open, .. } = self {
            open.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    fn complaint(&self, error: &io::Error) -> String {
        let place = match self {
            Self::Stdout => "standard output".to_owned(),
            Self::Path { path, .. } => path.display().to_string(),
        };
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free disk space there",
            io::ErrorKind::PermissionDenied => "make `path` writable for this user",
            io::ErrorKind::BrokenPipe => "nobody reads it any more: restart the reader",
            _ => "check `path`",
        };
        format!("cannot append to {place}: {error}; {advice}")
    }
}

#[cfg(test)]
mod tests;
