//! The tables of the state, and how those of earlier releases become them.
//!
//! A position is kept under the folder of its partition (all up to the last `/`) and the name in it: the keys of a bucket
//! are mostly folder, and millions of them would otherwise repeat it.
//!
//! | version | tables |
//! |---|---|
//! | 1 | positions under the whole name of their partition |
//! | 2 | folders, positions by folder and name |

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::chunk::{Partition, Position};
use crate::failpoint::{self, Step};

/// Version of the tables below.
pub(super) const SCHEMA_VERSION: i64 = 2;

const POSITIONS: &str = "
    CREATE TABLE folders (
        id INTEGER PRIMARY KEY,
        namespace TEXT NOT NULL,
        folder TEXT NOT NULL,
        UNIQUE (namespace, folder)
    );
    CREATE TABLE positions (
        folder INTEGER NOT NULL,
        name TEXT NOT NULL,
        position TEXT NOT NULL,
        PRIMARY KEY (folder, name)
    ) WITHOUT ROWID;
";

const OTHERS: &str = "
    CREATE TABLE notes (
        namespace TEXT NOT NULL,
        partition TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (namespace, partition, sequence)
    ) WITHOUT ROWID;
    CREATE TABLE counters (
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        value INTEGER NOT NULL,
        PRIMARY KEY (namespace, name)
    ) WITHOUT ROWID;
";

/// The version found, after making what a new database lacks and bringing an old one up to date; all in one transaction,
/// so that a process that dies on the way leaves what it found.
pub(super) fn prepare(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    transaction
        .execute_batch("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID")?;
    match version(transaction)? {
        Some(1) => {
            from_version_1(transaction)?;
            failpoint::reached(Step::Migrating);
            Ok(SCHEMA_VERSION)
        }
        Some(found) => Ok(found),
        None => {
            make(transaction)?;
            failpoint::reached(Step::Migrating);
            Ok(SCHEMA_VERSION)
        }
    }
}

/// The version of the tables, if there are any.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let version = "SELECT value FROM meta WHERE key = 'schema_version'";
    connection.query_row(version, [], |row| row.get(0)).optional()
}

fn make(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut key = [0; 192];
    getrandom::fill(&mut key).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    transaction.execute_batch(POSITIONS)?;
    transaction.execute_batch(OTHERS)?;
    transaction.execute("INSERT INTO meta VALUES ('key', ?1)", [key])?;
    transaction.execute("INSERT INTO meta VALUES ('schema_version', ?1)", [SCHEMA_VERSION])?;
    Ok(())
}

fn from_version_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    tracing::info!(
        "bringing the state up to version {SCHEMA_VERSION}; with millions of objects this takes a minute"
    );
    transaction.execute_batch("ALTER TABLE positions RENAME TO positions_1")?;
    transaction.execute_batch(POSITIONS)?;
    let mut select = transaction
        .prepare("SELECT namespace, partition, position FROM positions_1 ORDER BY namespace, partition")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (namespace, partition) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        put_position(transaction, namespace, partition, row.get_ref(2)?.as_str()?)?;
    }
    drop(rows);
    drop(select);
    transaction.execute_batch("DROP TABLE positions_1")?;
    transaction.execute("UPDATE meta SET value = ?1 WHERE key = 'schema_version'", [SCHEMA_VERSION])?;
    Ok(())
}

/// Folder, with its `/`, and name of a partition.
fn split(partition: &str) -> (&str, &str) {
    partition.split_at(partition.rfind('/').map_or(0, |slash| slash + 1))
}

fn folder_id(connection: &Connection, namespace: &str, folder: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM folders WHERE namespace = ?1 AND folder = ?2")?
        .query_row([namespace, folder], |row| row.get(0))
        .optional()
}

/// Keeps a position, in place of what is there.
pub(super) fn put_position(
    transaction: &Transaction<'_>,
    namespace: &str,
    partition: &str,
    position: &str,
) -> rusqlite::Result<()> {
    let (folder, name) = split(partition);
    let id = match folder_id(transaction, namespace, folder)? {
        Some(id) => id,
        None => {
            transaction
                .prepare_cached("INSERT INTO folders (namespace, folder) VALUES (?1, ?2)")?
                .execute([namespace, folder])?;
            transaction.last_insert_rowid()
        }
    };
    transaction
        .prepare_cached("INSERT OR REPLACE INTO positions VALUES (?1, ?2, ?3)")?
        .execute(params![id, name, position])
        .map(drop)
}

/// Forgets all partitions of these folders; how many there were.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    namespace: &str,
    forgets: &dyn Fn(&str) -> bool,
) -> rusqlite::Result<usize> {
    let mut select = transaction.prepare("SELECT id, folder FROM folders WHERE namespace = ?1")?;
    let folders =
        select.query_map([namespace], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    let mut forgotten = 0;
    for folder in folders.collect::<rusqlite::Result<Vec<_>>>()? {
        if !forgets(&folder.1) {
            continue;
        }
        let notes = "DELETE FROM notes WHERE namespace = ?1 AND partition IN
                     (SELECT ?2 || name FROM positions WHERE folder = ?3)";
        transaction.prepare_cached(notes)?.execute(params![namespace, folder.1, folder.0])?;
        forgotten +=
            transaction.prepare_cached("DELETE FROM positions WHERE folder = ?1")?.execute([folder.0])?;
        transaction.prepare_cached("DELETE FROM folders WHERE id = ?1")?.execute([folder.0])?;
    }
    Ok(forgotten)
}

/// The position of a partition.
pub(super) fn position(
    connection: &Connection,
    namespace: &str,
    partition: &str,
) -> rusqlite::Result<Option<Position>> {
    let (folder, name) = split(partition);
    let Some(id) = folder_id(connection, namespace, folder)? else { return Ok(None) };
    connection
        .prepare_cached("SELECT position FROM positions WHERE folder = ?1 AND name = ?2")?
        .query_row(params![id, name], |row| Ok(Position::new(row.get_ref(0)?.as_str()?)))
        .optional()
}

/// Positions of all partitions from `first` to `last`, in order of their names.
pub(super) fn range(
    connection: &Connection,
    namespace: &str,
    first: &str,
    last: &str,
) -> rusqlite::Result<Vec<(Partition, Position)>> {
    let mut found = Vec::new();
    for (id, folder) in folders(connection, namespace, first, last)? {
        let mut select = connection.prepare_cached(
            "SELECT name, position FROM positions WHERE folder = ?1 AND name >= ?2 ORDER BY name",
        )?;
        // What a folder holds comes after its name, and so the names of it that come before `first` begin like that.
        let mut rows = select.query(params![id, first.strip_prefix(folder.as_str()).unwrap_or_default()])?;
        while let Some(row) = rows.next()? {
            let partition = format!("{folder}{}", row.get_ref(0)?.as_str()?);
            if partition.as_str() > last {
                break;
            }
            found.push((Partition::new(&partition), Position::new(row.get_ref(1)?.as_str()?)));
        }
    }
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The folders that may hold something from `first` to `last`: those between them, and those that `first` lies in.
fn folders(
    connection: &Connection,
    namespace: &str,
    first: &str,
    last: &str,
) -> rusqlite::Result<Vec<(i64, String)>> {
    let mut found = Vec::new();
    let around = first.match_indices('/').filter_map(|(slash, _)| first.get(..=slash));
    for folder in std::iter::once("").chain(around).filter(|folder| *folder < first) {
        found.extend(folder_id(connection, namespace, folder)?.map(|id| (id, folder.to_owned())));
    }
    let mut select = connection
        .prepare_cached("SELECT id, folder FROM folders WHERE namespace = ?1 AND folder BETWEEN ?2 AND ?3")?;
    let between = select.query_map([namespace, first, last], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for folder in between {
        found.push(folder?);
    }
    Ok(found)
}
