//! Objects whose date closed long ago.

use super::*;

#[tokio::test]
async fn a_history_that_is_read_for_the_first_time_leaves_no_fingerprints_and_is_not_read_again() {
    const OLD: &str = "logs/workspaceId=7/date=2025-10-05/auditlogs_1.json";
    let bench = Bench::new();
    // Several chunks, and two lines that are there twice: once within the first, once far apart.
    let repeated = format!("{}{}{}{}", lines(0, 2), lines(0, 1), lines(2, 12_000), lines(1, 1));
    bench.put(OLD, &repeated).await;
    let first = bench.run_and_commit(1).await;
    let partition = Partition::new(OLD);
    assert!(!bench.state.notes("audit/out", &partition).await.unwrap().is_empty(), "needed to go on");
    let second = bench.run().await;
    let numbers: Vec<u32> =
        [&first, &second].iter().flat_map(|run| run.lines[OLD].iter().map(|(_, number)| *number)).collect();
    assert_eq!((numbers[2], numbers[12_003], numbers.len()), (1, 1, 12_004), "equal lines are told apart");
    assert_eq!(numbers.iter().sum::<u32>(), 2);
    assert_eq!(bench.state.notes("audit/out", &partition).await.unwrap(), Vec::<bytes::Bytes>::new());
    let third = bench.run().await;
    assert_eq!((third.texts().len(), third.fetched), (0, 0));
    // What is added late is shipped all the same.
    bench.put(OLD, repeated + &lines(20_000, 3)).await;
    assert_eq!(bench.run().await.texts().len(), 3);
    // With verify_on_close it is looked at once more before it is folded.
    let mut bench = Bench::new();
    bench.settings["verify_on_close"] = true.into();
    bench.put(OLD, lines(0, 3)).await;
    bench.run().await;
    assert!(!bench.state.notes("audit/out", &partition).await.unwrap().is_empty());
    assert_eq!(bench.run().await.skipped, 3);
    assert!(bench.state.notes("audit/out", &partition).await.unwrap().is_empty());
}
