//! Objects that are overwritten while auditferry runs.

use std::collections::HashSet;

use auditferry::generate::{Bucket, Options, Rewrite};

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{
    Collectors, Place, distinct, has, has_exactly, metric, output, request_ids, today,
};

const ROUNDS: u32 = 20;

fn options(events: u64) -> Options {
    Options { overwrite_rounds: ROUNDS, ..Options::new(2, 1, events, today()) }
}

/// Overwrites a bucket round by round under a running auditferry, waiting for what each round adds or for nothing. At the
/// end every line must have arrived once everywhere.
async fn overwrite(options: Options, input: &str, wait_for_each_round: bool) {
    let bucket = Bucket::new(options).unwrap();
    let (place, collectors) = (Place::new(), Collectors::start().await);
    let ferry = place.start(input, &collectors.outputs("")).await;
    let mut written = 0;
    for round in 0..=bucket.last_round() {
        written += bucket.write_round(&place.bucket(), round).unwrap().new_lines;
        if wait_for_each_round {
            collectors.have(usize::try_from(written).unwrap()).await;
            ferry.rests().await;
        }
    }
    let lines = bucket.lines().count();
    assert_eq!(usize::try_from(written).unwrap(), lines);
    collectors.have(lines).await;
    ferry.rests().await;
    let delivered: Vec<u64> =
        ferry.app.routes.iter().map(|route| route.metrics.events_delivered.get()).collect();
    assert_eq!(delivered, [lines as u64; 3]);
    ferry.stop().await;
    collectors.have_exactly(lines);
    let expected: HashSet<String> = bucket.request_ids().collect();
    for collector in collectors.all() {
        assert!(request_ids(collector) == expected, "{:?} has other events", collector.protocol());
    }
    assert!(place.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_objects_overwritten_twenty_times_arrive_once_in_each_collector() {
    overwrite(options(300), "", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_overwritten_twenty_times_arrive_once_in_each_collector() {
    overwrite(options(1000), "verify_whole_below = '16KiB'", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn true_repeats_arrive_as_often_as_they_stand_there_however_objects_are_overwritten() {
    let options = Options { repeats: 50_000, ..options(600) };
    overwrite(options, "verify_whole_below = '16KiB'", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_overwritten_faster_than_they_are_read_arrive_once_in_each_collector() {
    let options = Options { repeats: 20_000, ..options(1000) };
    overwrite(options, "verify_whole_below = '16KiB'\nconcurrency = 2", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growing_objects_cost_little_more_than_what_is_added() {
    let options = Options {
        overwrite_rounds: 4,
        rewrites: vec![Rewrite::Append],
        objects_per_day: Some(1),
        ..Options::new(1, 1, 10_000, today())
    };
    let bucket = Bucket::new(options).unwrap();
    let (place, collector) = (Place::new(), Collector::start(Protocol::Sumo).await);
    let ferry = place.start("", &[output(&collector, "")]).await;
    let mut written = 0;
    for round in 0..=bucket.last_round() {
        let summary = bucket.write_round(&place.bucket(), round).unwrap();
        written += usize::try_from(summary.new_lines).unwrap();
        has(&collector, written).await;
        ferry.rests().await;
        if round == bucket.last_round() {
            assert!(summary.bytes > 10_000_000, "the object has {} bytes", summary.bytes);
        }
    }
    let labels = "{input=\"audit\",output=\"sumo\"}";
    let fetched = metric(&ferry.app, &format!("auditferry_bytes_fetched_total{labels}"));
    let read = metric(&ferry.app, &format!("auditferry_bytes_read_total{labels}"));
    assert!(read > 10_000_000.0 && fetched / read <= 1.25, "{fetched} fetched for {read}");
    ferry.stop().await;
    has_exactly(&collector, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_sends_only_what_came_meanwhile() {
    let bucket = Bucket::new(Options { overwrite_rounds: 3, ..options(300) }).unwrap();
    let (place, collectors) = (Place::new(), Collectors::start().await);
    for round in 0..=bucket.last_round() {
        let written: usize =
            usize::try_from(bucket.write_round(&place.bucket(), round).unwrap().new_lines).unwrap();
        let before = distinct(&collectors.hec);
        let ferry = place.start("verify_whole_below = '16KiB'", &collectors.outputs("")).await;
        collectors.have(before + written).await;
        ferry.rests().await;
        assert_eq!(ferry.route("splunk").metrics.events_delivered.get(), written as u64);
        ferry.stop().await;
    }
    collectors.have_exactly(bucket.lines().count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_in_the_middle_lose_nothing_and_duplicate_no_document() {
    let bucket = Bucket::new(Options { overwrite_rounds: 8, repeats: 20_000, ..options(1500) }).unwrap();
    let (place, collectors) = (Place::new(), Collectors::start().await);
    let keys = "batch.max_events = 10\nin_flight = 2";
    for round in 0..=bucket.last_round() {
        bucket.write_round(&place.bucket(), round).unwrap();
        let before = distinct(&collectors.bulk);
        let ferry = place.start("verify_whole_below = '16KiB'", &collectors.outputs(keys)).await;
        if round < bucket.last_round() {
            has(&collectors.bulk, before + 1).await;
            ferry.crash().await;
        } else {
            collectors.have(bucket.lines().count()).await;
            ferry.rests().await;
            ferry.stop().await;
        }
    }
    let lines = bucket.lines().count();
    assert_eq!(collectors.bulk.ids().len(), lines);
    for collector in collectors.all() {
        assert_eq!(distinct(collector), lines, "{:?}", collector.protocol());
    }
}
