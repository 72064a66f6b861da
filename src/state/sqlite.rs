//! The state in one SQLite file: positions, notes and counters, on disk before a commit returns.
//!
//! SQLite was taken over an own journal because a crash in the middle of a commit, a torn page and a full disk are
//! solved there; it costs one fsync of the write-ahead log per commit, and commits are few.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};

use crate::chunk::{Note, Partition, Position};
use crate::failpoint::{self, Step};
use crate::private;
use crate::state::{Change, State, StateError};

mod tables;
mod upkeep;

use tables::SCHEMA_VERSION;
pub use upkeep::{Findings, Kept, Replacement, try_directory, verify};

/// A note is added to the last one while that is shorter than this, so that many small notes do not make many rows.
const NOTE_ROW_BYTES: i64 = 4096;
/// A database up to this size is looked through when it is opened: that takes a fraction of a second. In a larger one,
/// damage shows when it is met.
const LOOKED_THROUGH_BYTES: u64 = 64 << 20;

/// A [`State`] in `<state_dir>/state.db`. One process at a time: the lock goes with the last clone of the connection.
#[derive(Clone, Debug)]
pub struct SqliteState {
    path: Arc<str>,
    held: Arc<Held>,
}

/// The connection and the lock that makes it the only one; dropped in this order.
#[derive(Debug)]
struct Held {
    connection: Mutex<Connection>,
    _lock: File,
}

impl SqliteState {
    /// Opens the state in a directory, and makes both if they are not there yet.
    ///
    /// # Errors
    /// [`StateError`] if the directory cannot be written, another process uses it, or the database is damaged or newer.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let lock = lock(directory)?;
        let database = directory.join(DATABASE);
        drop(private_file(&database).map_err(|source| directory_error(directory, source))?);
        let path: Arc<str> = database.display().to_string().into();
        let connection = connect(&database).map_err(|error| database_error("open", &path, error))?;
        let held = Arc::new(Held { connection: Mutex::new(connection), _lock: lock });
        let state = Self { path, held };
        state.prepare()?;
        Ok(state)
    }

    /// Makes the tables or brings them up to date; finds out that they are too new, or damaged.
    fn prepare(&self) -> Result<(), StateError> {
        let failed = |error| database_error("open", &self.path, error);
        if let Some(damage) = self.held.with(|connection| upkeep::damage(connection)).map_err(failed)? {
            return Err(StateError::Damaged { path: self.path.to_string(), source: damage.into() });
        }
        let prepared = self.held.with(|connection| {
            let transaction = connection.transaction()?;
            let found = tables::prepare(&transaction)?;
            transaction.commit()?;
            Ok(found)
        });
        match prepared.map_err(failed)? {
            found if found > SCHEMA_VERSION => {
                Err(StateError::TooNew { path: self.path.to_string(), found, known: SCHEMA_VERSION })
            }
            _ => Ok(()),
        }
    }

    /// Runs `work` on a thread that may block: a commit waits for the disk.
    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let held = Arc::clone(&self.held);
        match tokio::task::spawn_blocking(move || held.with(work)).await {
            Ok(done) => done.map_err(|error| database_error(action, &self.path, error)),
            Err(stopped) => Err(StateError::Database {
                action,
                path: self.path.to_string(),
                source: stopped.into(),
                remedy: "this is a defect, please report it",
            }),
        }
    }
}

impl Held {
    /// A poisoned lock is taken all the same: whatever panicked, its transaction was rolled back.
    fn with<T>(&self, work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        work(&mut self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Name of the database below the state directory.
const DATABASE: &str = "state.db";
/// Name of the file beside it whose lock makes the directory one process's.
const LOCK: &str = "lock";

/// Makes the directory if it is not there yet, and takes it for this process.
fn lock(directory: &Path) -> Result<File, StateError> {
    let failed = |source| directory_error(directory, source);
    // Positions name objects and workspaces, notes fingerprint records: for this user's eyes only.
    private::directory(directory).map_err(failed)?;
    let lock = private_file(&directory.join(LOCK)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: directory.display().to_string() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn private_file(path: &Path) -> std::io::Result<File> {
    private::file(path, OpenOptions::new().read(true).write(true))
}

fn directory_error(directory: &Path, source: std::io::Error) -> StateError {
    StateError::Directory { path: directory.display().to_string(), source }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // Somebody may be looking into the file with another program.
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // In WAL mode only FULL syncs every commit; NORMAL would lose the last ones with the power.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "off")?;
    Ok(connection)
}

fn database_error(action: &'static str, path: &str, error: rusqlite::Error) -> StateError {
    let path = path.to_owned();
    // The index of the write-ahead log could not be made: SQLite calls that a fault of the disk.
    let no_room_for_index =
        error.sqlite_error().map(|error| error.extended_code) == Some(SQLITE_IOERR_SHMSIZE);
    let remedy = match error.sqlite_error_code() {
        _ if no_room_for_index => "free space on its disk",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            return StateError::Damaged { path, source: error.into() };
        }
        Some(ErrorCode::DiskFull) => "free space on its disk",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "make it writable for this user"
        }
        Some(ErrorCode::SystemIoFailure) => "look at its disk: the system's log names the fault",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has it open: close that one"
        }
        _ => "look at the file and its disk",
    };
    StateError::Database { action, path, source: error.into(), remedy }
}

fn apply(transaction: &Transaction<'_>, namespace: &str, change: &Change) -> rusqlite::Result<()> {
    let partition = change.partition.as_str();
    tables::put_position(transaction, namespace, partition, change.position.as_str())?;
    match &change.note {
        Note::Keep => Ok(()),
        Note::Append(bytes) => append_note(transaction, namespace, partition, bytes),
        Note::Clear => transaction
            .prepare_cached("DELETE FROM notes WHERE namespace = ?1 AND partition = ?2")?
            .execute([namespace, partition])
            .map(drop),
    }
}

fn append_note(
    transaction: &Transaction<'_>,
    namespace: &str,
    partition: &str,
    bytes: &[u8],
) -> rusqlite::Result<()> {
    let last: Option<(i64, i64)> = transaction
        .prepare_cached(
            "SELECT sequence, length(bytes) FROM notes WHERE namespace = ?1 AND partition = ?2
             ORDER BY sequence DESC LIMIT 1",
        )?
        .query_row([namespace, partition], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let sequence = match last {
        Some((sequence, length)) if length < NOTE_ROW_BYTES => {
            // `||` makes a text of two blobs unless it is cast back.
            return transaction
                .prepare_cached(
                    "UPDATE notes SET bytes = CAST(bytes || ?4 AS BLOB)
                     WHERE namespace = ?1 AND partition = ?2 AND sequence = ?3",
                )?
                .execute(params![namespace, partition, sequence, bytes])
                .map(drop);
        }
        Some((sequence, _)) => sequence + 1,
        None => 0,
    };
    transaction
        .prepare_cached("INSERT INTO notes VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![namespace, partition, sequence, bytes])
        .map(drop)
}

fn count(transaction: &Transaction<'_>, namespace: &str, name: &str, added: u64) -> rusqlite::Result<()> {
    // SQLite's integers are signed.
    let added = i64::try_from(added).unwrap_or(i64::MAX);
    transaction
        .prepare_cached(
            "INSERT INTO counters VALUES (?1, ?2, ?3)
             ON CONFLICT (namespace, name) DO UPDATE SET value = value + excluded.value",
        )?
        .execute(params![namespace, name, added])
        .map(drop)
}

#[async_trait]
impl State for SqliteState {
    async fn range(
        &self,
        namespace: &str,
        first: &str,
        last: &str,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        let (namespace, first, last) = (namespace.to_owned(), first.to_owned(), last.to_owned());
        self.run("read", move |connection| tables::range(connection, &namespace, &first, &last)).await
    }

    async fn positions(
        &self,
        namespace: &str,
        partitions: Vec<Partition>,
    ) -> Result<Vec<(Partition, Position)>, StateError> {
        let namespace = namespace.to_owned();
        self.run("read", move |connection| {
            let mut found = Vec::with_capacity(partitions.len());
            for partition in partitions {
                if let Some(position) = tables::position(connection, &namespace, partition.as_str())? {
                    found.push((partition, position));
                }
            }
            Ok(found)
        })
        .await
    }

    async fn notes(&self, namespace: &str, partition: &Partition) -> Result<Vec<Bytes>, StateError> {
        let (namespace, partition) = (namespace.to_owned(), partition.clone());
        self.run("read", move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT bytes FROM notes WHERE namespace = ?1 AND partition = ?2 ORDER BY sequence",
            )?;
            let rows = select.query_map([&namespace, partition.as_str()], |row| {
                row.get::<_, Vec<u8>>(0).map(Bytes::from)
            })?;
            rows.collect()
        })
        .await
    }

    async fn commit(
        &self,
        namespace: &str,
        changes: Vec<Change>,
        counts: Vec<(&'static str, u64)>,
    ) -> Result<(), StateError> {
        let namespace = namespace.to_owned();
        self.run("write", move |connection| {
            let transaction = connection.transaction()?;
            for change in &changes {
                apply(&transaction, &namespace, change)?;
            }
            for (name, added) in counts {
                count(&transaction, &namespace, name, added)?;
            }
            failpoint::reached(Step::Committing);
            transaction.commit()?;
            failpoint::reached(Step::Committed);
            Ok(())
        })
        .await
    }

    async fn counters(&self, namespace: &str) -> Result<Vec<(String, u64)>, StateError> {
        let namespace = namespace.to_owned();
        self.run("read", move |connection| {
            let mut select = connection
                .prepare_cached("SELECT name, value FROM counters WHERE namespace = ?1 ORDER BY name")?;
            let rows = select.query_map([namespace], |row| {
                let value: i64 = row.get(1)?;
                Ok((row.get(0)?, u64::try_from(value).unwrap_or(0)))
            })?;
            rows.collect()
        })
        .await
    }

    async fn key(&self) -> Result<[u8; 192], StateError> {
        self.run("read", |connection| {
            connection.query_row("SELECT value FROM meta WHERE key = 'key'", [], |row| row.get(0))
        })
        .await
    }
}

#[cfg(test)]
mod tests;
