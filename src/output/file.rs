//! A file that events are appended to, a line each, or standard output.
//!
//! A regular file is on disk before its events count as delivered. What a failed write or a crash leaves of a batch
//! was not counted, so it is cut off again. Two pipelines may share a file: a lock keeps their batches apart.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
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

struct Opened {
    file: File,
    /// Not a pipe or device: can be synced and cut.
    regular: bool,
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

impl Opened {
    fn at(path: &Path) -> io::Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)?;
        let file = open_options(path).open(path)?;
        let regular = file.metadata()?.is_file();
        if regular {
            // Whoever made file and directories, maybe this process before it was killed: their names must outlive a crash.
            parent.ancestors().try_for_each(sync_names)?;
        }
        Ok(Self { file, regular })
    }

    /// False for a file that was deleted: what is appended to it, nobody finds.
    fn has_a_name(&self) -> bool {
        #[cfg(unix)]
        {
            let links = self.file.metadata().map(|metadata| std::os::unix::fs::MetadataExt::nlink(&metadata));
            !matches!(links, Ok(0))
        }
        #[cfg(not(unix))]
        true
    }

    fn append(&self, body: &[u8]) -> io::Result<()> {
        if !self.regular {
            return (&self.file).write_all(body);
        }
        locked(&self.file, || {
            // Each time: another process may have died in the middle of its batch meanwhile.
            cut_torn_line(&self.file)?;
            or_undone(&self.file, || {
                (&self.file).write_all(body)?;
                self.file.sync_data()
            })
        })
    }
}

/// Appends, or leaves the file as it was: what a failed attempt wrote is sent again.
fn or_undone(file: &File, append: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let before = file.metadata()?.len();
    append().inspect_err(|_| {
        // If even this fails, the next batch cuts at least a torn line.
        let _ = file.set_len(before);
    })
}

/// Sees to it that what was made in a directory is found there after a crash.
fn sync_names(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let Ok(directory) = File::open(directory) else { return Ok(()) };
    match directory.sync_all() {
        // Some file systems have nothing to sync there.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

fn open_options(path: &Path) -> OpenOptions {
    // A pipe opened for reading too would take events although nobody reads them.
    let readable = std::fs::metadata(path).map_or(true, |metadata| metadata.is_file());
    let mut options = OpenOptions::new();
    options.read(readable).append(true).create(true);
    #[cfg(unix)]
    {
        // An audit trail is not for everybody to read.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    }
    options
}

/// Does something while no other output, of this process or another, appends to the file.
fn locked(file: &File, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    match file.lock() {
        // Some network file systems have no locks; then nobody else should write there.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return act(),
        locked => locked?,
    }
    let done = act();
    file.unlock()?;
    done
}

/// True if nothing stands behind the last line's end.
fn ends_a_line(mut file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut byte)?;
    Ok(byte == *b"\n")
}

/// Cuts off an unfinished last line, which a crash leaves: its batch was never counted as delivered.
fn cut_torn_line(file: &File) -> io::Result<()> {
    const BLOCK: u64 = 64 << 10;
    let length = file.metadata()?.len();
    if ends_a_line(file, length)? {
        return Ok(());
    }
    let mut start = length;
    let mut whole = 0;
    while start > 0 && whole == 0 {
        let end = start;
        start = end.saturating_sub(BLOCK);
        let mut block = Vec::new();
        let mut reader = file;
        reader.seek(SeekFrom::Start(start))?;
        reader.take(end - start).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            whole = start + u64::try_from(at).map_err(io::Error::other)? + 1;
        }
    }
    let mut first = [0];
    let mut reader = file;
    reader.seek(SeekFrom::Start(whole))?;
    reader.read_exact(&mut first)?;
    // Ours begins so, or is zeros where the crash came before the data.
    if !matches!(first, [b'{' | 0]) {
        return Err(io::Error::other("its last line has no end and is no event, so the file is not ours"));
    }
    file.set_len(whole)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn output(path: &Path) -> FileOutput {
        FileOutput::new(parse(json!({ "path": path })).unwrap()).unwrap()
    }

    fn request(body: &'static str) -> Request {
        Request { body: body.into(), encoding: Encoding::None, events: 1, uncompressed_bytes: body.len() }
    }

    const ACCEPTED: Verdict = Verdict::Accepted { slow_down: false };

    fn complaint(verdict: Verdict) -> String {
        match verdict {
            Verdict::Hold(alarm) if alarm.reason == HoldReason::Local => alarm.message,
            other => panic!("{other:?} is no local hold"),
        }
    }

    #[tokio::test]
    async fn batches_are_appended_to_a_file_that_is_created_with_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/events.ndjson");
        let output = output(&path);
        assert!(!path.parent().unwrap().exists());
        assert_eq!(output.send(&request("{\"a\":1}\n")).await, ACCEPTED);
        assert_eq!(output.send(&request("{\"a\":2}\n{\"a\":3}\n")).await, ACCEPTED);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
    }

    #[tokio::test]
    async fn a_line_torn_by_a_crash_is_cut_off_before_the_next_batch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let long = format!("{{\"a\":\"{}", "x".repeat(150_000));
        let lines = "{\"a\":1}\n".repeat(20_000);
        for (torn, kept) in [
            (format!("{lines}{long}"), lines.as_str()),
            ("{\"a\":1}\n{\"a\":".to_owned(), "{\"a\":1}\n"),
            (format!("{{\"a\":1}}\n{long}"), "{\"a\":1}\n"),
            (long, ""),
            ("{\"a\":1}\n\0\0\0".to_owned(), "{\"a\":1}\n"),
            ("{\"a\":1}\n".to_owned(), "{\"a\":1}\n"),
        ] {
            std::fs::write(&path, torn).unwrap();
            assert_eq!(output(&path).send(&request("{\"b\":2}\n")).await, ACCEPTED);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{kept}{{\"b\":2}}\n"));
        }
    }

    #[test]
    fn a_batch_that_fails_half_way_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        std::fs::write(&path, "{\"a\":1}\n").unwrap();
        let opened = Opened::at(&path).unwrap();
        let failed = or_undone(&opened.file, || {
            (&opened.file).write_all(b"{\"a\":2}\n{\"a\"")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n");
    }

    #[tokio::test]
    async fn outputs_that_share_a_file_wait_for_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let (output, request) = (output(&path), request("{\"a\":1}\n"));
        assert_eq!(output.send(&request).await, ACCEPTED);
        let other = File::open(&path).unwrap();
        other.lock().unwrap();
        let mut send = output.send(&request);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut send).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n");
        other.unlock().unwrap();
        assert_eq!(send.await, ACCEPTED);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_was_deleted_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let output = output(&path);
        assert_eq!(output.send(&request("{\"a\":1}\n")).await, ACCEPTED);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(output.send(&request("{\"a\":2}\n")).await, ACCEPTED);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":2}\n");
    }

    #[tokio::test]
    async fn a_line_torn_by_another_process_is_cut_off_before_the_next_batch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let output = output(&path);
        assert_eq!(output.send(&request("{\"a\":1}\n")).await, ACCEPTED);
        // It died in the middle of its batch.
        let mut other = OpenOptions::new().append(true).open(&path).unwrap();
        other.write_all(b"{\"b\":1}\n{\"b\":").unwrap();
        assert_eq!(output.send(&request("{\"a\":2}\n")).await, ACCEPTED);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":1}\n{\"a\":2}\n");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_pipe_takes_nothing_until_somebody_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (output, request) = (output(&path), request("{\"a\":1}\n"));
        let mut send = output.send(&request);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut send).await.is_err());
        let reader = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
        assert_eq!(send.await, ACCEPTED);
        output.reopen().await;
        assert_eq!(reader.await.unwrap().unwrap(), "{\"a\":1}\n");
    }

    #[tokio::test]
    async fn a_file_of_somebody_else_is_not_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        std::fs::write(&path, "root:x:0:0").unwrap();
        let message = complaint(output(&path).send(&request("{}\n")).await);
        assert!(message.contains("not ours"), "{message}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "root:x:0:0");
    }

    #[tokio::test]
    async fn after_reopen_a_rotated_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, rotated) = (directory.path().join("events"), directory.path().join("events.1"));
        let output = output(&path);
        assert_eq!(output.send(&request("{\"a\":1}\n")).await, ACCEPTED);
        std::fs::rename(&path, &rotated).unwrap();
        output.reopen().await;
        assert_eq!(output.send(&request("{\"a\":2}\n")).await, ACCEPTED);
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "{\"a\":1}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":2}\n");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_disk_holds_and_says_what_to_do() {
        let message = complaint(output(Path::new("/dev/full")).send(&request("{}\n")).await);
        assert!(message.contains("/dev/full") && message.contains("free disk space"), "{message}");
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_opened_holds() {
        let message = complaint(output(Path::new("/dev/null/events.ndjson")).send(&request("{}\n")).await);
        assert!(message.contains("cannot append to"), "{message}");
    }

    #[tokio::test]
    async fn a_device_is_written_to_without_sync_and_repair() {
        assert_eq!(output(Path::new("/dev/null")).send(&request("{}\n")).await, ACCEPTED);
    }

    #[test]
    fn a_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = FileOutput::new(Config { path: directory.path().to_owned() }).err().unwrap();
        assert!(refused.message.ends_with("is a directory; write the path of a file"), "{refused}");
    }

    #[test]
    fn an_empty_path_is_refused() {
        let error = FileOutput::new(parse(json!({"path": ""})).unwrap()).err().unwrap();
        assert!(error.to_string().starts_with("path: "), "{error}");
    }
}
