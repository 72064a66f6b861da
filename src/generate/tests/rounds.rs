//! What the rounds do to objects that were written before.

use std::collections::HashMap;

use super::*;

#[test]
fn the_last_round_holds_every_line_whatever_the_rounds_did() {
    for layout in LAYOUTS {
        for rounds in [0, 1, 4, 6, 20] {
            let options = Options { overwrite_rounds: rounds, repeats: 5000, ..of_layout(layout, 997) };
            let bucket = Bucket::new(options.clone()).unwrap();
            assert_eq!(sorted_lines(&written(options, rounds)), expected_lines(&bucket), "{rounds} rounds");
        }
    }
}

/// How often each line occurs.
fn counts(text: &str) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for line in text.lines() {
        *counts.entry(line).or_default() += 1;
    }
    counts
}

fn holds(new: &str, old: &str) -> bool {
    let new = counts(new);
    counts(old).into_iter().all(|(line, times)| new.get(line).copied().unwrap_or(0) >= times)
}

#[test]
fn each_kind_of_round_changes_an_object_in_its_own_way() {
    type Check = fn(&str, &str) -> bool;
    let checks: [(Rewrite, Check); 5] = [
        (Rewrite::Append, |old, new| new.len() > old.len() && new.starts_with(old)),
        (Rewrite::Insert, |old, new| {
            holds(new, old) && !new.starts_with(old) && new.lines().last() == old.lines().last()
        }),
        (Rewrite::Reorder, |old, new| holds(new, old) && !new.starts_with(old) && new.len() > old.len()),
        (Rewrite::Shrink, |old, new| new.len() < old.len() && old.starts_with(new)),
        (Rewrite::Touch, |old, new| old == new),
    ];
    for (rewrite, check) in checks {
        let options = Options { overwrite_rounds: 2, rewrites: vec![rewrite], ..options(600) };
        let (old, new) = (written(options.clone(), 0), written(options, 1));
        assert!(old.iter().all(|(key, text)| check(text, &new[key])), "{rewrite:?}");
    }
}

#[test]
fn only_a_shrinking_round_loses_lines_and_the_next_growth_brings_them_back() {
    let options = Options { overwrite_rounds: 20, objects_per_day: Some(1), ..options(1200) };
    let bucket = Bucket::new(options).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut longest: BTreeMap<String, String> = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    for round in 0..=20 {
        bucket.write_round(directory.path(), round).unwrap();
        for (key, text) in read(directory.path()) {
            let most = longest.entry(key).or_default();
            if most.starts_with(&text) && text.len() < most.len() {
                kinds.insert("shrunk");
                continue;
            }
            kinds.insert(if *most == text {
                "touched"
            } else if text.starts_with(&*most) {
                "appended"
            } else {
                "changed"
            });
            assert!(holds(&text, most), "round {round}");
            *most = text;
        }
    }
    assert_eq!(kinds, BTreeSet::from(["appended", "changed", "shrunk", "touched"]));
    assert_eq!(sorted_lines(&longest), expected_lines(&bucket));
}

#[test]
fn a_summary_counts_what_is_in_the_files_and_what_is_new() {
    let options = Options { overwrite_rounds: 9, ..options(600) };
    let bucket = Bucket::new(options).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut new = (0, 0);
    for round in 0..=9 {
        let summary = bucket.write_round(directory.path(), round).unwrap();
        let files = read(directory.path());
        assert_eq!(summary.objects, 12);
        assert_eq!(summary.bytes, files.values().map(|text| u64::try_from(text.len()).unwrap()).sum::<u64>());
        assert_eq!(summary.lines, u64::try_from(sorted_lines(&files).len()).unwrap());
        new = (new.0 + summary.new_lines, new.1 + summary.new_bytes);
    }
    let bytes: usize = bucket.lines().map(|line| line.len() + 1).sum();
    assert_eq!(new, (600, u64::try_from(bytes).unwrap()));
}

#[test]
fn files_are_replaced_and_leave_nothing_beside_them() {
    let directory = tempfile::tempdir().unwrap();
    let bucket = Bucket::new(Options { overwrite_rounds: 1, ..options(60) }).unwrap();
    bucket.write_round(directory.path(), 0).unwrap();
    let key = bucket.keys().next().unwrap();
    let mut open = File::open(directory.path().join(&key)).unwrap();
    let before = fs::read_to_string(directory.path().join(&key)).unwrap();
    bucket.write_round(directory.path(), 1).unwrap();
    let mut seen = String::new();
    io::Read::read_to_string(&mut open, &mut seen).unwrap();
    assert_eq!(seen, before, "a reader keeps the version it opened");
    assert_eq!(read(directory.path()).into_keys().collect::<BTreeSet<_>>(), bucket.keys().collect());
}
