//! What must hold of every parser, whatever it is given: one function over any bytes for each.
//!
//! The fuzzer (`tests/fuzz`) calls them with inputs that it steers by the paths they take; the tests below with the corpus
//! and with what becomes of it by chance, so that `cargo test` holds the same properties on any machine. Only in tests and
//! in the fuzzer's build.

// A property that does not hold is a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod answers;
mod configuration;
mod json;
mod records;
mod redaction;
mod template;

pub use answers::answers;
pub use configuration::configuration;
pub use json::json;
pub use records::records;
pub use redaction::redaction;
pub use template::template;

pub use crate::input::bucket::fuzzing::{lines, tail};

/// What stores, queues and workspaces answer.
pub fn listings(data: &[u8]) {
    crate::input::bucket::fuzzing::listings(data);
    crate::input::system_table::fuzzing::answers(data);
}

/// What stands in the state: a position or a note that is not what was written there costs no panic.
pub fn state(data: &[u8]) {
    crate::input::bucket::fuzzing::state(data);
    crate::input::system_table::fuzzing::state(data);
}

/// A target: panics where something does not hold.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("answers", answers),
    ("configuration", configuration),
    ("json", json),
    ("lines", lines),
    ("listings", listings),
    ("records", records),
    ("redaction", redaction),
    ("state", state),
    ("tail", tail),
    ("template", template),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::{Strategy, any, prop};
    use proptest::test_runner::{Config, TestRunner};

    use super::*;

    const CASES: u32 = 256;

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
        let mut paths: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// One change to an input, as a fuzzer makes them.
    #[derive(Clone, Debug)]
    enum Change {
        Cut(prop::sample::Index),
        Set(prop::sample::Index, u8),
        Insert(prop::sample::Index, Vec<u8>),
        Repeat(prop::sample::Index, u8),
        Splice(prop::sample::Index, prop::sample::Index),
    }

    fn change() -> impl Strategy<Value = Change> {
        let at = any::<prop::sample::Index>;
        let telling = prop::sample::select(b"{}[]\",:\\\n\r\0\xff\xc3 0-\x1b".to_vec());
        proptest::prop_oneof![
            at().prop_map(Change::Cut),
            (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
            (at(), telling).prop_map(|(at, byte)| Change::Set(at, byte)),
            (at(), prop::collection::vec(any::<u8>(), 1..8))
                .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
            (at(), 1u8..40).prop_map(|(at, times)| Change::Repeat(at, times)),
            (at(), at()).prop_map(|(at, other)| Change::Splice(at, other)),
        ]
    }

    fn changed(mut input: Vec<u8>, change: &Change, corpus: &[Vec<u8>]) -> Vec<u8> {
        match change {
            Change::Cut(at) => input.truncate(at.index(input.len() + 1)),
            Change::Set(at, byte) if !input.is_empty() => {
                let at = at.index(input.len());
                input[at] = *byte;
            }
            Change::Set(_, byte) => input.push(*byte),
            Change::Insert(at, bytes) => {
                let at = at.index(input.len() + 1);
                input.splice(at..at, bytes.iter().copied());
            }
            Change::Repeat(at, times) => {
                let at = at.index(input.len() + 1);
                let piece = input[at..input.len().min(at + 9)].repeat(usize::from(*times));
                input.splice(at..at, piece);
            }
            Change::Splice(at, other) => {
                let other = other.get(corpus);
                input.truncate(at.index(input.len() + 1));
                input.extend_from_slice(&other[at.index(other.len() + 1)..]);
            }
        }
        input
    }

    /// The corpus, what becomes of it by a few changes, and bytes that mean nothing.
    fn holds(target: &str) {
        let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
        let corpus = corpus(target);
        assert!(corpus.len() >= 5, "the corpus of {target} is gone");
        corpus.iter().for_each(|input| check(input));
        let from_corpus = (any::<prop::sample::Index>(), prop::collection::vec(change(), 1..6)).prop_map(
            |(seed, changes)| {
                changes
                    .iter()
                    .fold(seed.get(&corpus).clone(), |input, change| changed(input, change, &corpus))
            },
        );
        let inputs = proptest::prop_oneof![
            4 => from_corpus,
            1 => prop::collection::vec(any::<u8>(), 0..200),
        ];
        // A failing input belongs into the corpus, not into a file of seeds.
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        TestRunner::new(config)
            .run(&inputs, |input| {
                check(&input);
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn every_target_has_its_corpus_and_its_twin() {
        let targets = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")).unwrap();
        let mut targets: Vec<_> =
            targets.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        targets.sort();
        assert_eq!(targets, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn answers_of_collectors_are_judged_whatever_they_say() {
        holds("answers");
    }

    #[test]
    fn any_configuration_is_read_or_refused_in_plain_lines() {
        holds("configuration");
    }

    #[test]
    fn json_is_what_serde_json_takes_it_for() {
        holds("json");
    }

    #[test]
    fn lines_and_records_do_not_depend_on_the_pieces() {
        holds("lines");
    }

    #[test]
    fn any_listing_row_or_notification_is_read_or_refused() {
        holds("listings");
    }

    #[test]
    fn any_record_is_decoded_once_and_written_as_json_by_every_format_and_output() {
        holds("records");
    }

    #[test]
    fn no_secret_is_left_and_the_rest_is_json_as_before() {
        holds("redaction");
    }

    #[test]
    fn any_state_can_be_gone_on_from() {
        holds("state");
    }

    #[test]
    fn what_is_shipped_of_an_object_is_the_union_of_its_versions() {
        holds("tail");
    }

    #[test]
    fn a_filled_template_breaks_nothing_it_is_put_into() {
        holds("template");
    }
}
