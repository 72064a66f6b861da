//! Letters are taken out of their file for a replay, which may die on the way: nobody else adds to them, and none is lost.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Letters, ReadError, TAKEN, file_error, open_existing, read, still_named, with_ending};

/// Letters taken for a replay: no longer where new ones are added, and held against other replays.
#[derive(Debug)]
pub struct Taken {
    path: PathBuf,
    _lock: File,
}

/// The name of what a replay has taken out of a file.
pub(super) fn taken_name(path: &Path) -> PathBuf {
    with_ending(path, TAKEN)
}

/// Takes the letters of a file for a replay by renaming it, or those that an interrupted replay took before; that one
/// is finished first. `path` is the file's own name. `None` if there is nothing to replay.
///
/// # Errors
/// [`ReadError`] if the file cannot be opened or renamed, or another replay is at it.
pub fn take(path: &Path) -> Result<Option<Taken>, ReadError> {
    let taken = taken_name(path);
    loop {
        // An unfinished replay has its letters under the other name; it has the lock as well while it runs.
        let (name, lock) = match open_existing(&taken)? {
            Some(lock) => (taken.as_path(), lock),
            None => match open_existing(path)? {
                Some(lock) => (path, lock),
                None => return Ok(None),
            },
        };
        if name == path {
            // Waits for a writer; from then on writers find that the file has lost its name.
            lock.lock().map_err(|source| file_error("lock", path, source))?;
        } else {
            hold(&lock, &taken)?;
        }
        // Whoever had the lock before may have renamed or removed the file.
        if !still_named(&lock, name).map_err(|source| file_error("look at", name, source))? {
            continue;
        }
        if name == path {
            // Not a rename: that would replace the letters of a replay that began just now.
            match std::fs::hard_link(path, &taken) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                linked => linked.map_err(|source| file_error("rename", path, source))?,
            }
        }
        // Also where an interrupted replay got no further than the link.
        if still_named(&lock, path).map_err(|source| file_error("look at", path, source))? {
            std::fs::remove_file(path).map_err(|source| file_error("rename", path, source))?;
        }
        return Ok(Some(Taken { path: taken, _lock: lock }));
    }
}

impl Taken {
    /// The letters.
    ///
    /// # Errors
    /// [`ReadError`] if they cannot be opened.
    pub fn letters(&self) -> Result<Letters, ReadError> {
        read(&self.path)
    }

    /// Where they are now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes them. To be called when every one of them is delivered, or kept anew.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be removed.
    pub fn finish(self) -> Result<(), ReadError> {
        std::fs::remove_file(&self.path).map_err(|source| file_error("remove", &self.path, source))
    }
}

pub(super) fn hold(file: &File, path: &Path) -> Result<(), ReadError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(ReadError::Taken { path: path.display().to_string() }),
        Err(TryLockError::Error(source)) => Err(file_error("lock", path, source)),
    }
}
