use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use super::*;

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

#[tokio::test]
async fn a_damaged_database_is_told_from_a_busy_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state.db"), "this is no database, it is a text ".repeat(100))
        .unwrap();
    let error = SqliteState::open(directory.path()).unwrap_err();
    assert!(matches!(error, StateError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("state.db"), "{error}");
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
async fn a_torn_database_is_found_out_at_the_start_with_what_to_do() {
    let directory = filled().await;
    let path = directory.path().join("state.db");
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 100_000);
    for left in [17, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&path, &whole[..left]).unwrap();
        let error = SqliteState::open(directory.path()).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{left}: {error}");
        let text = error.to_string();
        assert!(text.contains("auditferry state rebuild") && !text.contains('\n'), "{left}: {text}");
        let found = verify(directory.path()).unwrap().unwrap();
        assert!(!found.problems.is_empty(), "{left}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(verify(directory.path()).unwrap().unwrap().problems, Vec::<String>::new());
    SqliteState::open(directory.path()).unwrap();
}

#[tokio::test]
async fn pages_that_hold_something_else_are_found_out_at_the_start() {
    let directory = filled().await;
    let path = directory.path().join("state.db");
    let whole = std::fs::read(&path).unwrap();
    for page in 0..whole.len() / 4096 {
        for garbage in [0, 0xff, 0x55] {
            let mut bytes = whole.clone();
            bytes[page * 4096..][..4096].fill(garbage);
            std::fs::write(&path, bytes).unwrap();
            let error = SqliteState::open(directory.path()).unwrap_err();
            assert!(matches!(error, StateError::Damaged { .. }), "page {page}, {garbage}: {error}");
            assert!(!verify(directory.path()).unwrap().unwrap().problems.is_empty(), "page {page}");
        }
    }
}

#[tokio::test]
async fn a_torn_log_of_the_last_commits_costs_those_commits_only() {
    let directory = tempfile::tempdir().unwrap();
    let state = SqliteState::open(directory.path()).unwrap();
    for round in 0..20 {
        state.commit("p", vec![change("a", &round.to_string(), Note::Keep)], vec![]).await.unwrap();
    }
    let (crashed, log) =
        (tempfile::tempdir().unwrap(), std::fs::read(directory.path().join("state.db-wal")).unwrap());
    std::fs::copy(directory.path().join("state.db"), crashed.path().join("state.db")).unwrap();
    let mut last = 20;
    for left in (0..=log.len()).rev().step_by(1013) {
        std::fs::write(crashed.path().join("state.db-wal"), &log[..left]).unwrap();
        let found = {
            let state = SqliteState::open(crashed.path()).unwrap();
            positions(&state, "p", ALL.0, ALL.1).await
        };
        let round = found.first().map_or(-1, |(_, at)| at.parse::<i64>().unwrap());
        assert!(round <= last, "{left}");
        last = round;
        std::fs::copy(directory.path().join("state.db"), crashed.path().join("state.db")).unwrap();
    }
    assert!(last < 5, "the first commits were torn too: {last}");
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

#[derive(Clone, Debug)]
struct Step {
    namespace: &'static str,
    changes: Vec<(&'static str, String, Note)>,
    count: u64,
    reopen: bool,
}

/// Names that are folders of each other, lie beside each other or hold nothing but a separator.
const NAMES: &[&str] = &["", "a", "a/", "a/b", "a/b/c", "a/b0", "a/c", "a0/b", "b", "é/é", "//pass", "/"];

fn step() -> impl Strategy<Value = Step> {
    let note = prop_oneof![
        Just(Note::Keep),
        vec(any::<u8>(), 0..3000).prop_map(|bytes| Note::Append(bytes.into())),
        Just(Note::Clear),
    ];
    let change = (select(NAMES), "[a-z0-9]{0,8}", note);
    (select(&["i/x", "i/y"][..]), vec(change, 0..4), 0..u64::from(u32::MAX), any::<bool>())
        .prop_map(|(namespace, changes, count, reopen)| Step { namespace, changes, count, reopen })
}

#[derive(Default)]
struct Model {
    partitions: BTreeMap<(&'static str, &'static str), (String, Vec<u8>)>,
    counters: BTreeMap<&'static str, u64>,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        for (partition, position, note) in &step.changes {
            let entry = self.partitions.entry((step.namespace, partition)).or_default();
            entry.0.clone_from(position);
            match note {
                Note::Keep => {}
                Note::Append(bytes) => entry.1.extend_from_slice(bytes),
                Note::Clear => entry.1.clear(),
            }
        }
        *self.counters.entry(step.namespace).or_default() += step.count;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever is committed, before and after a restart, the state holds what a map in memory would.
    #[test]
    fn the_state_equals_a_map(steps in vec(step(), 1..12), first in select(NAMES), last in select(NAMES)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut state = SqliteState::open(directory.path()).unwrap();
        let mut model = Model::default();
        for step in &steps {
            let changes = step.changes.iter().map(|(name, at, note)| change(name, at, note.clone())).collect();
            runtime.block_on(state.commit(step.namespace, changes, vec![("records", step.count)])).unwrap();
            model.apply(step);
            if step.reopen {
                drop(state);
                state = SqliteState::open(directory.path()).unwrap();
            }
        }
        let mut found = BTreeMap::new();
        for namespace in ["i/x", "i/y"] {
            for (partition, position) in runtime.block_on(state.range(namespace, ALL.0, ALL.1)).unwrap() {
                let notes = runtime.block_on(state.notes(namespace, &partition)).unwrap().concat();
                found.insert((namespace, partition.to_string()), (position.as_str().to_owned(), notes));
            }
            let counted = runtime.block_on(state.counters(namespace)).unwrap();
            let total = model.counters.get(namespace).map(|total| ("records".to_owned(), *total));
            prop_assert_eq!(counted, Vec::from_iter(total));
        }
        let expected: BTreeMap<_, _> =
            model.partitions.into_iter().map(|((name, at), entry)| ((name, at.to_owned()), entry)).collect();
        for namespace in ["i/x", "i/y"] {
            let within = |((of, name), (at, _)): (&(&str, String), &(String, Vec<u8>))| {
                (*of == namespace && (first..=last).contains(&name.as_str())).then(|| (name.clone(), at.clone()))
            };
            let wanted: Vec<_> = expected.iter().filter_map(within).collect();
            prop_assert_eq!(runtime.block_on(positions(&state, namespace, first, last)), wanted);
            let asked = NAMES.iter().rev().map(|name| Partition::new(name)).collect();
            let named = runtime.block_on(state.positions(namespace, asked)).unwrap();
            let named: Vec<_> =
                named.iter().map(|(name, at)| (name.to_string(), at.as_str().to_owned())).collect();
            let all = NAMES.iter().rev().filter_map(|name| {
                let (at, _) = expected.get(&(namespace, (*name).to_owned()))?;
                Some(((*name).to_owned(), at.clone()))
            });
            prop_assert_eq!(named, all.collect::<Vec<_>>());
        }
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_disk_without_room_for_the_index_of_the_log_is_told_as_a_full_one() {
    let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(SQLITE_IOERR_SHMSIZE), None);
    let told = database_error("open", "state.db", error).to_string();
    assert!(told.ends_with("free space on its disk"), "{told}");
}
