//! Letters that nobody wants any more are taken out of their files, also while a service adds to them.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::taken::{hold, taken_name};
use super::{KeptLetter, ReadError, file_error, open_existing, read, still_named};
use crate::private;

/// Removes the letters that are `unwanted` from the file of this name, and from what an interrupted replay took out of it;
/// how many.
///
/// # Errors
/// [`ReadError`] if a file cannot be read or written, or a replay is at it. Each file is left as it was or is done.
pub fn remove(path: &Path, unwanted: impl Fn(&KeptLetter) -> bool) -> Result<u64, ReadError> {
    let taken = taken_name(path);
    let mut removed = 0;
    if let Some(lock) = locked(&taken, |lock| hold(lock, &taken))? {
        // The replay may have got no further than to give the file its second name.
        if still_named(&lock, path).map_err(|source| file_error("look at", path, source))? {
            std::fs::remove_file(path).map_err(|source| file_error("rename", path, source))?;
        }
        removed += without(&taken, &unwanted)?;
    }
    // Waits for a writer; those that come later find that the file has lost its name.
    let wait = |lock: &File| lock.lock().map_err(|source| file_error("lock", path, source));
    if let Some(_lock) = locked(path, wait)? {
        removed += without(path, &unwanted)?;
    }
    Ok(removed)
}

/// The file of this name, locked; `None` if there is none.
fn locked(path: &Path, lock: impl Fn(&File) -> Result<(), ReadError>) -> Result<Option<File>, ReadError> {
    loop {
        let Some(file) = open_existing(path)? else { return Ok(None) };
        lock(&file)?;
        // Whoever had the lock before may have put another file in its place.
        if still_named(&file, path).map_err(|source| file_error("look at", path, source))? {
            return Ok(Some(file));
        }
    }
}

/// Puts a file with the other letters in the place of one that is locked.
fn without(path: &Path, unwanted: impl Fn(&KeptLetter) -> bool) -> Result<u64, ReadError> {
    let rest = Rest(super::with_ending(path, ".rest"));
    let failed = |source| file_error("write", &rest.0, source);
    // Of a process that died; nobody else makes one while the file is locked.
    let _ = std::fs::remove_file(&rest.0);
    let mut out = BufWriter::new(private::file(&rest.0, OpenOptions::new().write(true)).map_err(failed)?);
    let (mut kept, mut removed) = (0_u64, 0);
    let mut letters = read(path)?;
    while let Some(next) = letters.next_line() {
        let (line, letter) = next?;
        if unwanted(&letter) {
            removed += 1;
            continue;
        }
        kept += 1;
        out.write_all(&line).and_then(|()| out.write_all(b"\n")).map_err(failed)?;
    }
    if removed == 0 {
        return Ok(0);
    }
    if kept == 0 {
        std::fs::remove_file(path).map_err(|source| file_error("remove", path, source))?;
    } else {
        let written = out.into_inner().map_err(|error| failed(error.into_error()))?;
        written.sync_all().map_err(failed)?;
        std::fs::rename(&rest.0, path).map_err(failed)?;
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| file_error("write", directory, source))?;
    Ok(removed)
}

/// A file that is removed unless it got another name.
struct Rest(PathBuf);

impl Drop for Rest {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
