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

#[derive(Clone, Debug)]
struct Step {
    namespace: &'static str,
    changes: Vec<(&'static str, String, Note)>,
    count: u64,
    reopen: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let note = prop_oneof![
        Just(Note::Keep),
        vec(any::<u8>(), 0..3000).prop_map(|bytes| Note::Append(bytes.into())),
        Just(Note::Clear),
    ];
    let change = (select(&["", "a", "a/b", "b", "é"][..]), "[a-z0-9]{0,8}", note);
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
    fn the_state_equals_a_map(steps in vec(step(), 1..12)) {
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
        prop_assert_eq!(found, expected);
    }
}
