//! Dead letters in NDJSON files, one per pipeline: readable with `less` and `jq`, replayable by the command line.
//!
//! Writer, replay and removal may be several processes. All lock the file, and the writer looks after locking whether the file
//! still has its name: a letter is never added to a file that was taken away or replaced.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dead_letter::{DeadLetter, DeadLetterError, DeadLetterOrigin, DeadLetters};
use crate::failpoint::{self, Step};
use crate::private;

mod removal;
mod taken;

pub use removal::remove;
pub use taken::{Taken, take};

const DIRECTORY: &str = "dead-letters";
const EXTENSION: &str = ".ndjson";
const TAKEN: &str = ".replaying";
/// Time between two looks at a file that somebody else has locked.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Keeps the dead letters of one pipeline in `<state_dir>/dead-letters/<input>.<output>.ndjson`.
#[derive(Debug)]
pub struct FileDeadLetters(Arc<Place>);

#[derive(Debug)]
struct Place {
    directory: PathBuf,
    path: PathBuf,
    pipeline: String,
}

/// A dead letter as it lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLetter {
    /// Its number in the file, from 0.
    pub index: u64,
    /// When it was kept, RFC 3339.
    pub time: String,
    /// The pipeline that kept it, `<input>/<output>`.
    pub pipeline: String,
    /// The letter.
    pub letter: DeadLetter,
}

/// A file of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// True for one that a replay took and has not finished.
    pub replaying: bool,
}

/// Why kept dead letters cannot be read or taken.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be opened, read or renamed.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another replay is at it.
    #[error("{path} is being replayed by another process; wait until it ends")]
    Taken {
        /// The file.
        path: String,
    },
    /// A line is no dead letter.
    #[error("{path}, line {line}: no dead letter: {source}; repair or remove that line")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

#[derive(Deserialize, Serialize)]
struct Line {
    time: String,
    pipeline: String,
    reason: String,
    detail: String,
    #[serde(flatten)]
    origin: DeadLetterOrigin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<String>,
    /// A record that is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_text")]
    record_base64: Option<Vec<u8>>,
    truncated: bool,
}

/// A record's bytes as Base64 text.
mod base64_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{BASE64_STANDARD, Engine};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes.as_deref().unwrap_or_default()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Some).map_err(D::Error::custom)
    }
}

impl Line {
    fn new(pipeline: &str, time: &str, letter: DeadLetter) -> Self {
        let (record, record_base64) = match String::from_utf8(letter.record.into()) {
            Ok(text) => (Some(text), None),
            Err(binary) => (None, Some(binary.into_bytes())),
        };
        Self {
            time: time.to_owned(),
            pipeline: pipeline.to_owned(),
            reason: letter.reason,
            detail: letter.detail,
            origin: letter.origin,
            record,
            record_base64,
            truncated: letter.truncated,
        }
    }

    fn into_kept(self, index: u64) -> KeptLetter {
        let record = self.record.map(String::into_bytes).or(self.record_base64).unwrap_or_default();
        let letter = DeadLetter {
            reason: self.reason,
            detail: self.detail,
            origin: self.origin,
            record: Bytes::from(record),
            truncated: self.truncated,
        };
        KeptLetter { index, time: self.time, pipeline: self.pipeline, letter }
    }
}

impl FileDeadLetters {
    /// Dead letters of the pipeline `<input>/<output>`; makes the directory, the file comes with the first letter.
    ///
    /// # Errors
    /// [`DeadLetterError`] if the directory cannot be made.
    pub fn open(state_dir: &Path, pipeline: &str) -> Result<Self, DeadLetterError> {
        let directory = state_dir.join(DIRECTORY);
        private::directory(&directory)
            .map_err(|source| DeadLetterError { path: directory.display().to_string(), source })?;
        let path = directory.join(format!("{}{EXTENSION}", pipeline.replace('/', ".")));
        Ok(Self(Arc::new(Place { directory, path, pipeline: pipeline.to_owned() })))
    }
}

#[async_trait]
impl DeadLetters for FileDeadLetters {
    async fn keep(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        let place = Arc::clone(&self.0);
        let kept = match tokio::task::spawn_blocking(move || place.append(letters)).await {
            Ok(kept) => kept,
            Err(stopped) => Err(stopped.into()),
        };
        kept.map_err(|source| DeadLetterError { path: self.0.path.display().to_string(), source })
    }
}

impl Place {
    fn append(&self, letters: Vec<DeadLetter>) -> std::io::Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
        let mut lines = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut lines, &Line::new(&self.pipeline, &time, letter))?;
            lines.push(b'\n');
        }
        let mut file = self.lock(pause)?;
        let end = whole_lines(&mut file)?;
        file.set_len(end)?;
        let written = file.write_all(&lines);
        failpoint::reached(Step::KeepingDeadLetters);
        let synced = written.and_then(|()| file.sync_data()).and_then(|()| match end {
            // Also the name of a file that is new.
            0 => File::open(&self.directory)?.sync_all(),
            _ => Ok(()),
        });
        if let Err(error) = synced {
            // The letters come again: do not leave the first of them here twice. Should this fail as well, the torn
            // line is cut off before the next letter is written.
            let _ = file.set_len(end);
            return Err(error);
        }
        failpoint::reached(Step::KeptDeadLetters);
        Ok(())
    }

    /// The file, locked until it is dropped. Not waited for in the lock: a replay that comes first renames the file and keeps
    /// it locked as long as it lasts.
    fn lock(&self, wait: impl Fn()) -> std::io::Result<File> {
        loop {
            let file = private::file(&self.path, OpenOptions::new().read(true).append(true))?;
            match file.try_lock() {
                Ok(()) if still_named(&file, &self.path)? => return Ok(file),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => wait(),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "on a thread for blocking work")]
fn pause() {
    std::thread::sleep(LOCK_INTERVAL);
}

/// Whether an open file is the one that has this name now.
fn still_named(file: &File, path: &Path) -> std::io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(named) => Ok(named.ino() == file.metadata()?.ino()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the last whole line ends: a crash may have torn the last one, which was not acknowledged then.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let (part, _) = block.split_at_mut(usize::try_from(end - start).unwrap_or(0));
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(line_end) = memchr::memrchr(b'\n', part) {
            return Ok(start + line_end as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The files of dead letters below a state directory, in order of their names.
///
/// # Errors
/// [`ReadError`] if the directory cannot be read. That there is none means that there are no dead letters.
pub fn list(state_dir: &Path) -> Result<Vec<LetterFile>, ReadError> {
    let directory = state_dir.join(DIRECTORY);
    let failed = |source| file_error("list", &directory, source);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let replaying = name.strip_suffix(TAKEN);
        if replaying.unwrap_or(&name).ends_with(EXTENSION) {
            let bytes = entry.metadata().map_err(failed)?.len();
            files.push(LetterFile { path: entry.path(), bytes, replaying: replaying.is_some() });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Reads the letters of a file one by one.
///
/// # Errors
/// [`ReadError`] if it cannot be opened.
pub fn read(path: &Path) -> Result<Letters, ReadError> {
    let file = File::open(path).map_err(|source| file_error("open", path, source))?;
    Ok(Letters { lines: BufReader::new(file), path: path.to_owned(), index: 0 })
}

/// The letters of a file. A torn last line is left out: what it held was not acknowledged and came, or comes, again.
#[derive(Debug)]
pub struct Letters {
    lines: BufReader<File>,
    path: PathBuf,
    index: u64,
}

impl Iterator for Letters {
    type Item = Result<KeptLetter, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().map(|next| next.map(|(_, kept)| kept))
    }
}

impl Letters {
    /// The next letter, with the line that it stands in.
    fn next_line(&mut self) -> Option<Result<(Vec<u8>, KeptLetter), ReadError>> {
        let mut line = Vec::new();
        if let Err(source) = self.lines.read_until(b'\n', &mut line) {
            return Some(Err(file_error("read", &self.path, source)));
        }
        line.pop_if(|last| *last == b'\n')?;
        let index = self.index;
        self.index += 1;
        Some(match serde_json::from_slice::<Line>(&line) {
            Ok(read) => Ok((line, read.into_kept(index))),
            Err(source) => {
                Err(ReadError::Line { path: self.path.display().to_string(), line: index + 1, source })
            }
        })
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn open_existing(path: &Path) -> Result<Option<File>, ReadError> {
    match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error("open", path, source)),
    }
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> ReadError {
    ReadError::File { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests;
