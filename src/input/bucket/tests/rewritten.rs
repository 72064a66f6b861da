//! Objects that are rewritten in any way, and a process that dies anywhere.

use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

use super::*;

/// One rewriting of an object's lines.
#[derive(Clone, Debug)]
enum Rewrite {
    Append(Vec<u8>),
    Insert(usize, Vec<u8>),
    Remove(usize),
    Reverse,
    Touch,
}

fn rewrites() -> impl Strategy<Value = Vec<(Rewrite, usize)>> {
    let line = prop::collection::vec(0u8..12, 1..4);
    let rewrite = prop_oneof![
        4 => line.clone().prop_map(Rewrite::Append),
        2 => (any::<usize>(), line).prop_map(|(at, lines)| Rewrite::Insert(at, lines)),
        1 => any::<usize>().prop_map(Rewrite::Remove),
        1 => proptest::strategy::Just(Rewrite::Reverse),
        1 => proptest::strategy::Just(Rewrite::Touch),
    ];
    prop::collection::vec(
        (rewrite, prop_oneof![3 => proptest::strategy::Just(usize::MAX), 1 => 0usize..4]),
        1..10,
    )
}

fn rewritten(mut lines: Vec<u8>, rewrite: Rewrite) -> Vec<u8> {
    match rewrite {
        Rewrite::Append(more) => lines.extend(more),
        Rewrite::Insert(at, more) => {
            let at = at % (lines.len() + 1);
            lines.splice(at..at, more);
        }
        Rewrite::Remove(at) if !lines.is_empty() => {
            lines.remove(at % lines.len());
        }
        Rewrite::Remove(_) | Rewrite::Touch => {}
        Rewrite::Reverse => lines.reverse(),
    }
    lines
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 48, ..Default::default() })]

    /// Whatever is done to an object and wherever the process dies: every line ends up shipped as often as it ever
    /// stood in one version, with numbers from 0 on, and none more often (what was not committed was not shipped here).
    #[test]
    fn shipped_is_the_union_of_all_versions(rewrites in rewrites(), small in any::<bool>(), terminated in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            if small {
                bench.settings["verify_whole_below"] = serde_json::json!("256KiB");
            }
            let text = |line: u8| format!("{{\"line\":{line},\"pad\":\"{}\"}}", "y".repeat(usize::from(line) * 3000));
            let mut version = Vec::new();
            let mut most = [0usize; 12];
            let mut shipped: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            for (rewrite, commits) in rewrites {
                version = rewritten(version, rewrite);
                let mut content: String = version.iter().map(|line| text(*line) + "\n").collect();
                if !terminated {
                    content.pop();
                }
                bench.put(KEY, content).await;
                let outcome = bench.run_and_commit(commits).await;
                for (line, number) in outcome.lines.into_values().flatten() {
                    shipped.entry(line).or_default().push(number);
                }
                if commits == usize::MAX {
                    for line in 0..12u8 {
                        let now = version.iter().filter(|other| **other == line).count();
                        most[usize::from(line)] = most[usize::from(line)].max(now);
                    }
                    for line in 0..12u8 {
                        let mut numbers = shipped.get(&text(line)).cloned().unwrap_or_default();
                        numbers.sort_unstable();
                        // A version that was read in part may have held more of a line than any read in whole.
                        let least = u32::try_from(most[usize::from(line)]).unwrap();
                        let all: Vec<u32> = (0..least.max(u32::try_from(numbers.len()).unwrap())).collect();
                        prop_assert_eq!(numbers, all, "line {}", line);
                    }
                }
            }
            Ok(())
        })?;
    }
}
