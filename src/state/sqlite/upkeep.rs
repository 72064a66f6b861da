//! Care of the database: whether it is sound, and how a new one takes its place.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    DATABASE, Held, LOCK, LOOKED_THROUGH_BYTES, SCHEMA_VERSION, SqliteState, database_error, directory_error,
    lock, tables,
};
use crate::private;
use crate::state::StateError;

/// Most findings that are told; a damaged database may have millions.
const MOST_FINDINGS: usize = 20;
/// Directory below the state directory in which a new state is made.
const REPLACEMENT: &str = "rebuilding";

/// What is wrong with a database that was opened, as far as can be seen at once.
pub(super) fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    // What lies in the log belongs to the file: only then is its size what the first page says. It may not be moved
    // there where the disk is full; that stops no start.
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        Err(error) if is_damage(&error) => return Err(error),
        _ => {}
    }
    let cut = cut_off(connection)?;
    let bytes = connection.path().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len());
    if cut.is_some() || bytes > LOOKED_THROUGH_BYTES {
        return Ok(cut);
    }
    Ok(findings(connection, "PRAGMA quick_check(1)")?.into_iter().next())
}

/// Says so where the file is shorter than its first page tells.
fn cut_off(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let path = connection.path().unwrap_or_default().to_owned();
    let stored = std::fs::metadata(&path).map_or(0, |file| file.len());
    let logged = std::fs::metadata(format!("{path}-wal")).map_or(0, |file| file.len());
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let expected = u64::try_from(pages.saturating_mul(page_bytes)).unwrap_or(0);
    let cut = logged == 0 && stored < expected;
    Ok(cut.then(|| format!("{stored} of its {expected} bytes are left")))
}

/// What a check finds; nothing where all is well.
fn findings(connection: &Connection, check: &str) -> rusqlite::Result<Vec<String>> {
    let mut select = connection.prepare(check)?;
    let found = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(found.into_iter().filter(|line| line != "ok").map(|line| line.trim().replace('\n', " ")).collect())
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Tries whether a state could be kept in a directory, also while a process uses it, and leaves nothing behind.
///
/// # Errors
/// [`StateError`] as [`SqliteState::open`] gives it.
pub fn try_directory(directory: &Path) -> Result<(), StateError> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|path| *path != Path::new("") && !path.exists()).collect();
    let tried = try_writing(directory);
    for made in missing {
        // Not there if it could not be made; not empty if a service has begun to use it just now.
        let _ = std::fs::remove_dir(made);
    }
    tried.map_err(|source| directory_error(directory, source))
}

fn try_writing(directory: &Path) -> std::io::Result<()> {
    private::directory(directory)?;
    let trial = directory.join(format!("trial-{}", std::process::id()));
    private::file(&trial, OpenOptions::new().write(true))?;
    std::fs::remove_file(&trial)?;
    for file in [LOCK, DATABASE] {
        absent_or(OpenOptions::new().read(true).write(true).open(directory.join(file)).map(drop))?;
    }
    Ok(())
}

/// What a look through a state found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Version of its tables; 0 where that cannot be read.
    pub version: i64,
    /// Size of its file.
    pub bytes: u64,
    /// What is wrong with it, some of it; empty if it is sound.
    pub problems: Vec<String>,
    /// What it keeps, by pipeline.
    pub kept: Vec<Kept>,
}

/// What a state keeps for a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `<input>/<output>`
    pub namespace: String,
    /// Objects, partitions of a topic or hours of the table whose position is known.
    pub positions: u64,
    /// Bytes kept beside them, such as fingerprints.
    pub note_bytes: u64,
}

/// Looks through the state in a directory, also while a process uses it, and changes nothing. `None` if there is none.
///
/// # Errors
/// [`StateError`] if it cannot be opened, or is of a newer release.
pub fn verify(directory: &Path) -> Result<Option<Findings>, StateError> {
    let database = directory.join(DATABASE);
    let bytes = match std::fs::metadata(&database) {
        Ok(file) => file.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(directory_error(directory, source)),
    };
    let path = database.display().to_string();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&database, flags);
    let connection = connection.map_err(|error| database_error("open", &path, error))?;
    let mut found = Findings { bytes, ..Findings::default() };
    match look_through(&connection, &mut found) {
        Err(error) if is_damage(&error) => found.problems.push(error.to_string()),
        looked => looked.map_err(|error| database_error("read", &path, error))?,
    }
    if found.version > SCHEMA_VERSION {
        return Err(StateError::TooNew { path, found: found.version, known: SCHEMA_VERSION });
    }
    Ok(Some(found))
}

fn look_through(connection: &Connection, found: &mut Findings) -> rusqlite::Result<()> {
    found.problems.extend(cut_off(connection)?);
    found.problems.extend(findings(connection, &format!("PRAGMA integrity_check({MOST_FINDINGS})"))?);
    found.version = match tables::version(connection) {
        Ok(version) => version.unwrap_or(0),
        // A file without tables: a process died before it had made them.
        Err(error) if found.bytes == 0 || !found.problems.is_empty() => {
            tracing::debug!("{error}");
            0
        }
        Err(error) => {
            found.problems.push(error.to_string());
            0
        }
    };
    if found.version != SCHEMA_VERSION || !found.problems.is_empty() {
        return Ok(());
    }
    let orphans: i64 = connection.query_row(
        "SELECT count(*) FROM positions WHERE folder NOT IN (SELECT id FROM folders)",
        [],
        |row| row.get(0),
    )?;
    if orphans > 0 {
        found.problems.push(format!("{orphans} positions without their folder"));
    }
    let keys: i64 = connection.query_row(
        "SELECT count(*) FROM meta WHERE key = 'key' AND typeof(value) = 'blob' AND length(value) = 192",
        [],
        |row| row.get(0),
    )?;
    if keys == 0 {
        found.problems.push("the key of the fingerprints is gone".to_owned());
    }
    let mut select = connection.prepare(
        "SELECT namespace, count(*), (SELECT coalesce(sum(length(bytes)), 0) FROM notes WHERE notes.namespace = folders.namespace)
         FROM folders JOIN positions ON positions.folder = folders.id GROUP BY namespace ORDER BY namespace",
    )?;
    let kept = select.query_map([], |row| {
        let whole = |index| row.get::<_, i64>(index).map(|value| u64::try_from(value).unwrap_or(0));
        Ok(Kept { namespace: row.get(0)?, positions: whole(1)?, note_bytes: whole(2)? })
    })?;
    found.kept = kept.collect::<rusqlite::Result<_>>()?;
    Ok(())
}

impl SqliteState {
    /// Forgets the positions in these folders of a pipeline; how many there were.
    ///
    /// # Errors
    /// [`StateError`] if the database cannot be written; nothing is forgotten then.
    pub fn forget(&self, namespace: &str, folders: &dyn Fn(&str) -> bool) -> Result<usize, StateError> {
        let forgotten = self.held.with(|connection| {
            let transaction = connection.transaction()?;
            let forgotten = tables::forget(&transaction, namespace, folders)?;
            transaction.commit()?;
            Ok(forgotten)
        });
        forgotten.map_err(|error| database_error("write", &self.path, error))
    }

    /// Gives the disk back what is not needed any more. Where it has no room for that, the space is used again by and by.
    pub fn shrink(&self) {
        if let Err(error) = self.held.with(|connection| connection.execute_batch("VACUUM")) {
            tracing::debug!("the state in {} keeps its size: {error}", self.path);
        }
    }
}

/// A state that is being made beside the one it is to replace; the directory is this process's meanwhile.
#[derive(Debug)]
pub struct Replacement {
    directory: PathBuf,
    state: SqliteState,
    place: Place,
    _lock: std::fs::File,
}

/// The directory in which a new state is made; it goes when the state is in its place, or will not come there.
#[derive(Debug)]
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // The next try would remove it too.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Replacement {
    /// Begins a new state. What an earlier try left is removed, what is in use so far stays as it is.
    ///
    /// # Errors
    /// [`StateError`] if another process uses the directory, or it cannot be written.
    pub fn begin(directory: &Path) -> Result<Self, StateError> {
        let lock = lock(directory)?;
        let place = Place(directory.join(REPLACEMENT));
        absent_or(std::fs::remove_dir_all(&place.0)).map_err(|source| directory_error(&place.0, source))?;
        Ok(Self { directory: directory.to_owned(), state: SqliteState::open(&place.0)?, place, _lock: lock })
    }

    /// Takes over what the old state knows of a pipeline; how many positions that are.
    ///
    /// # Errors
    /// [`StateError`] if the old state cannot be read, or is of another version.
    pub fn take_over(&self, namespace: &str) -> Result<usize, StateError> {
        let old = self.directory.join(DATABASE);
        if !old.exists() {
            return Ok(0);
        }
        let path = old.display().to_string();
        let taken = Held::with(&self.state.held, |connection| {
            connection.execute("ATTACH ?1 AS old", [&path])?;
            let taken = take_rows(connection, namespace);
            connection.execute_batch("DETACH old")?;
            taken
        });
        taken.map_err(|error| database_error("read", &path, error))
    }

    /// The new state.
    pub fn state(&self) -> SqliteState {
        self.state.clone()
    }

    /// Puts the new state in the old one's place. The old one is kept, with this suffix and a number where the name is
    /// taken, and its name is given back; `None` if there was none.
    ///
    /// # Errors
    /// [`StateError`] if the files cannot be moved; the old state is in place then, or none.
    pub fn finish(self, suffix: &str) -> Result<Option<PathBuf>, StateError> {
        let Self { directory, state, place, _lock } = self;
        // All of it into the one file that is moved.
        Held::with(&state.held, |connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
        .map_err(|error| database_error("write", &state.path, error))?;
        let failed = |source| directory_error(&directory, source);
        let old = directory.join(DATABASE);
        let aside = free_name(&old, suffix);
        settle(&old);
        // First of all its log, if it is still there: the new database must not be taken for the one that it belongs to.
        absent_or(std::fs::rename(with_ending(&old, "-wal"), with_ending(&aside, "-wal"))).map_err(failed)?;
        // The index of the log is made anew from it.
        absent_or(std::fs::remove_file(with_ending(&old, "-shm"))).map_err(failed)?;
        let kept = absent_or(std::fs::hard_link(&old, &aside)).map_err(failed)?;
        std::fs::rename(place.0.join(DATABASE), &old).map_err(failed)?;
        std::fs::File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        // Before the lock.
        drop((state, place));
        Ok(kept.then_some(aside))
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A name beside the database that neither a file nor a log has yet. The lock keeps others from taking it.
fn free_name(database: &Path, suffix: &str) -> PathBuf {
    let first = with_ending(database, &format!(".{suffix}"));
    let further = (2_u64..).map(|number| with_ending(database, &format!(".{suffix}-{number}")));
    let free = |name: &PathBuf| !name.exists() && !with_ending(name, "-wal").exists();
    std::iter::once(first.clone()).chain(further).find(free).unwrap_or(first)
}

/// Moves what lies in the log of a database into its one file, as far as it can be done: of one that is damaged the log is
/// kept beside it.
fn settle(database: &Path) {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let settled = Connection::open_with_flags(database, flags).and_then(|connection| {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        connection.close().map_err(|(_, error)| error)
    });
    if let Err(error) = settled {
        tracing::debug!("the log of {} stays beside it: {error}", database.display());
    }
}

fn take_rows(connection: &mut Connection, namespace: &str) -> rusqlite::Result<usize> {
    let transaction = connection.transaction()?;
    let mut taken = 0;
    {
        let mut select = transaction.prepare(
            "SELECT folders.folder, name, position FROM old.folders JOIN old.positions ON positions.folder = folders.id
             WHERE namespace = ?1",
        )?;
        let mut rows = select.query([namespace])?;
        while let Some(row) = rows.next()? {
            let partition = format!("{}{}", row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
            tables::put_position(&transaction, namespace, &partition, row.get_ref(2)?.as_str()?)?;
            taken += 1;
        }
    }
    for table in ["notes", "counters"] {
        let copy = format!("INSERT INTO main.{table} SELECT * FROM old.{table} WHERE namespace = ?1");
        transaction.execute(&copy, [namespace])?;
    }
    transaction.commit()?;
    Ok(taken)
}

/// Whether something was there to be done with.
fn absent_or(done: std::io::Result<()>) -> std::io::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
