use std::os::unix::fs::PermissionsExt;

use super::*;

mod damage;
mod model;

/// Lowest and highest partition name that the tests use.
const ALL: (&str, &str) = ("", "\u{10ffff}");

fn change(partition: &str, position: &str, note: Note) -> Change {
    Change { partition: Partition::new(partition), position: Position::new(position), note }
}

async fn positions(state: &SqliteState, namespace: &str, first: &str, last: &str) -> Vec<(String, String)> {
    let found = state.range(namespace, first, last).await.unwrap();
    found.iter().map(|(partition, position)| (partition.to_string(), position.as_str().to_owned())).collect()
}

fn sqlite(directory: &Path, statement: &str) {
    Connection::open(directory.join("state.db")).unwrap().execute_batch(statement).unwrap();
}

/// A state of some hundred objects in a new directory.
async fn filled() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    let name = |object: usize| format!("workspaceId={}/date=2026-01-05/auditlogs_{object}.json", object % 7);
    let note = || Note::Append(vec![7; 800].into());
    let changes = (0..500).map(|object| change(&name(object), "2 d 1000 10 10 1000 abc v", note())).collect();
    state.commit("in/out", changes, vec![("records", 500)]).await.unwrap();
    directory
}

#[tokio::test]
async fn a_commit_survives_and_ranges_are_ordered_by_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    let names = ["a", "B", "a/1", "ä", "a/10", "a/2"];
    let changes = names.iter().map(|name| change(name, &format!("at {name}"), Note::Keep)).collect();
    state.commit("in/out", changes, vec![("records", 6)]).await.unwrap();
    state.commit("in/other", vec![change("a", "elsewhere", Note::Keep)], vec![]).await.unwrap();
    drop(state);

    let state = SqliteState::open(directory.path()).unwrap();
    let found = positions(&state, "in/out", ALL.0, ALL.1).await;
    let order: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(order, ["B", "a", "a/1", "a/10", "a/2", "ä"]);
    let within = positions(&state, "in/out", "a/1", "a/2").await;
    assert_eq!(within.len(), 3, "both ends belong to the range: {within:?}");
    assert_eq!(positions(&state, "in/other", "a", "a").await, [("a".into(), "elsewhere".into())]);
    assert_eq!(state.counters("in/out").await.unwrap(), [("records".into(), 6)]);
    assert_eq!(state.counters("in/other").await.unwrap(), []);
}

#[tokio::test]
async fn a_commit_that_fails_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    state.commit("p", vec![change("a", "1", Note::Append("one".into()))], vec![("n", 1)]).await.unwrap();
    sqlite(
        directory.path(),
        "CREATE TRIGGER refuse BEFORE INSERT ON counters BEGIN SELECT RAISE(ABORT, 'refused by a test'); END",
    );
    let changes = vec![change("a", "2", Note::Clear), change("b", "2", Note::Keep)];
    let error = state.commit("p", changes, vec![("m", 1)]).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot write the state in") && error.contains("refused"), "{error}");
    assert_eq!(positions(&state, "p", ALL.0, ALL.1).await, [("a".into(), "1".into())]);
    assert_eq!(state.notes("p", &Partition::new("a")).await.unwrap(), ["one"]);
    assert_eq!(state.counters("p").await.unwrap(), [("n".into(), 1)]);
}

#[tokio::test]
async fn small_notes_share_a_row_and_large_ones_do_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    // Bytes that are no text, and one that would end a C string.
    let small = Bytes::from_static(b"\xff\x00\x01");
    for _ in 0..10 {
        state.commit("p", vec![change("a", "1", Note::Append(small.clone()))], vec![]).await.unwrap();
    }
    let partition = Partition::new("a");
    assert_eq!(state.notes("p", &partition).await.unwrap(), [small.repeat(10)]);
    let row = usize::try_from(NOTE_ROW_BYTES).unwrap();
    let large = Bytes::from(vec![7; row]);
    for _ in 0..3 {
        state.commit("p", vec![change("a", "2", Note::Append(large.clone()))], vec![]).await.unwrap();
    }
    let lengths: Vec<usize> = state.notes("p", &partition).await.unwrap().iter().map(Bytes::len).collect();
    assert_eq!(lengths, [30 + row, row, row]);
    state.commit("p", vec![change("a", "3", Note::Clear)], vec![]).await.unwrap();
    assert_eq!(state.notes("p", &partition).await.unwrap(), Vec::<Bytes>::new());
}

#[tokio::test]
async fn the_key_is_random_and_lasting() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = SqliteState::open(first.path()).unwrap().key().await.unwrap();
    assert_eq!(SqliteState::open(first.path()).unwrap().key().await.unwrap(), key);
    assert_ne!(SqliteState::open(second.path()).unwrap().key().await.unwrap(), key);
    assert_ne!(key, [0; 192]);
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    let error = SqliteState::open(directory.path()).unwrap_err();
    assert!(matches!(error, StateError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&*directory.path().to_string_lossy()), "{error}");
    drop(state);
    SqliteState::open(directory.path()).unwrap();
}

#[test]
fn files_are_for_this_user_only_and_every_commit_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let state_dir = directory.path().join("var/state");
    let state = SqliteState::open(&state_dir).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state_dir), 0o700);
    for file in ["state.db", "state.db-wal", "lock"] {
        assert_eq!(mode(&state_dir.join(file)), 0o600, "{file}");
    }
    let pragma = |name: &str| {
        state
            .held
            .with(|connection| {
                connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            })
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), rusqlite::types::Value::Text("wal".into()));
    assert_eq!(pragma("synchronous"), rusqlite::types::Value::Integer(2));
}

#[test]
fn a_directory_that_cannot_be_a_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = SqliteState::open(&file.join("state")).unwrap_err();
    assert!(matches!(error, StateError::Directory { .. }), "{error}");
    assert!(error.to_string().contains("file/state"), "{error}");
}

#[test]
fn a_newer_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteState::open(directory.path()).unwrap());
    sqlite(directory.path(), "UPDATE meta SET value = 9 WHERE key = 'schema_version'");
    for _ in 0..2 {
        let error = SqliteState::open(directory.path()).unwrap_err();
        assert!(matches!(error, StateError::TooNew { found: 9, known: SCHEMA_VERSION, .. }), "{error}");
    }
}

/// The state that the first release left of three objects, one of them with a line that is there twice.
const VERSION_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/state_version_1.db");

#[tokio::test]
async fn a_state_of_the_first_release_is_brought_up_to_date_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(VERSION_1, directory.path().join("state.db")).unwrap();
    assert_eq!(verify(directory.path()).unwrap().unwrap().version, 1);
    for _ in 0..2 {
        let state = SqliteState::open(directory.path()).unwrap();
        let found = positions(&state, "audit/out", ALL.0, ALL.1).await;
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let objects = [
            "workspaceId=7/date=2026-01-05/auditlogs_1.json",
            "workspaceId=7/date=2026-01-05/auditlogs_2.json",
            "workspaceId=8/date=2026-01-06/auditlogs_1.json",
        ];
        assert_eq!(names, objects);
        assert!(found[0].1.contains(r#""offset":357,"lines":3,"shipped":3"#), "as it was: {}", found[0].1);
        let notes = state.notes("audit/out", &Partition::new(objects[0])).await.unwrap();
        assert_eq!(notes.concat().len(), 3 * 8);
        let counted = state.counters("audit/out").await.unwrap();
        assert!(counted.contains(&("events_delivered".to_owned(), 6)), "{counted:?}");
        assert_ne!(state.key().await.unwrap(), [0; 192]);
    }
    let found = verify(directory.path()).unwrap().unwrap();
    assert_eq!((found.version, found.problems.as_slice()), (SCHEMA_VERSION, [].as_slice()));
    let kept = Kept { namespace: "audit/out".to_owned(), positions: 3, note_bytes: 48 };
    assert_eq!(found.kept, [kept]);
}

#[test]
fn a_migration_that_is_cut_short_leaves_what_there_was() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(VERSION_1, directory.path().join("state.db")).unwrap();
    // In the way of the new tables, as anything is that fails in the middle.
    sqlite(directory.path(), "CREATE TABLE folders (other)");
    let error = SqliteState::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("folders"), "{error}");
    sqlite(directory.path(), "DROP TABLE folders");
    drop(SqliteState::open(directory.path()).unwrap());
    assert_eq!(verify(directory.path()).unwrap().unwrap().kept[0].positions, 3);
}

#[tokio::test]
async fn a_new_state_takes_the_old_ones_place_at_once() {
    let directory = filled().await;
    let replacement = Replacement::begin(directory.path()).unwrap();
    let error = SqliteState::open(directory.path()).unwrap_err();
    assert!(matches!(error, StateError::InUse { .. }), "nobody may use the old one meanwhile: {error}");
    let state = replacement.state();
    state.commit("in/out", vec![change("a", "1", Note::Keep)], vec![]).await.unwrap();
    drop(state);
    let aside = replacement.finish("before").unwrap().unwrap();
    assert_eq!(aside, directory.path().join("state.db.before"));
    let state = SqliteState::open(directory.path()).unwrap();
    assert_eq!(positions(&state, "in/out", ALL.0, ALL.1).await, [("a".into(), "1".into())]);
    assert!(!directory.path().join("rebuilding").exists());
    let kept = tempfile::tempdir().unwrap();
    std::fs::rename(aside, kept.path().join("state.db")).unwrap();
    assert_eq!(verify(kept.path()).unwrap().unwrap().kept[0].positions, 500);
}

#[tokio::test]
async fn a_new_state_takes_over_what_the_old_one_knew_of_a_pipeline() {
    let directory = filled().await;
    {
        let state = SqliteState::open(directory.path()).unwrap();
        let changes =
            vec![change("table/h1", "open", Note::Append("ids".into())), change("x", "1", Note::Keep)];
        state.commit("table/out", changes, vec![("events_delivered", 3)]).await.unwrap();
    }
    let replacement = Replacement::begin(directory.path()).unwrap();
    assert_eq!(replacement.take_over("table/out").unwrap(), 2);
    assert_eq!(replacement.take_over("nobody/out").unwrap(), 0);
    replacement.finish("before").unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    let found = positions(&state, "table/out", ALL.0, ALL.1).await;
    assert_eq!(found, [("table/h1".into(), "open".into()), ("x".into(), "1".into())]);
    assert_eq!(state.notes("table/out", &Partition::new("table/h1")).await.unwrap(), ["ids"]);
    assert_eq!(state.counters("table/out").await.unwrap(), [("events_delivered".into(), 3)]);
    assert_eq!(positions(&state, "in/out", ALL.0, ALL.1).await, []);
}

#[tokio::test]
async fn what_cannot_be_taken_over_of_a_damaged_state_is_said_and_the_new_one_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state.db"), "no database ".repeat(1000)).unwrap();
    let replacement = Replacement::begin(directory.path()).unwrap();
    let error = replacement.take_over("table/out").unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. }), "{error}");
    replacement.state().commit("in/out", vec![change("a", "1", Note::Keep)], vec![]).await.unwrap();
    replacement.finish("before").unwrap();
    assert_eq!(verify(directory.path()).unwrap().unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_new_state_that_was_not_finished_changes_nothing() {
    let directory = filled().await;
    let replacement = Replacement::begin(directory.path()).unwrap();
    replacement.state().commit("in/out", vec![change("a", "1", Note::Keep)], vec![]).await.unwrap();
    drop(replacement);
    assert_eq!(verify(directory.path()).unwrap().unwrap().kept[0].positions, 500);
    let replacement = Replacement::begin(directory.path()).unwrap();
    assert_eq!(positions(&replacement.state(), "in/out", ALL.0, ALL.1).await, [], "begun anew");
}

/// What a million objects take, by what some thousands do.
#[tokio::test]
async fn an_object_whose_date_is_closed_takes_less_than_180_bytes() {
    const OBJECTS: u32 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    for date in 0..OBJECTS / 100 {
        let position = |object: u32| {
            let etag = "0123456789abcdef".repeat(2);
            let name = format!(
                "audit/workspaceId=7405611902334455/date=2025-{:02}-{:02}/auditlogs_0a1b2c3d4e5f6a7b_{object:04}.json",
                date / 31 + 1,
                date % 31 + 1
            );
            change(&name, &format!("2 df 1048000 1000 0 65536 0123456789abcdef \"{etag}\""), Note::Clear)
        };
        state.commit("audit/splunk", (0..100).map(position).collect(), vec![]).await.unwrap();
    }
    drop(state);
    let bytes = std::fs::metadata(directory.path().join("state.db")).unwrap().len() / u64::from(OBJECTS);
    assert!(bytes < 180, "{bytes} bytes an object");
}

#[test]
fn a_disk_without_room_for_the_index_of_the_log_is_told_as_a_full_one() {
    let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(SQLITE_IOERR_SHMSIZE), None);
    let told = database_error("open", "state.db", error).to_string();
    assert!(told.ends_with("free space on its disk"), "{told}");
}
