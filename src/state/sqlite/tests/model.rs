//! The state against a map in memory.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use super::*;

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
