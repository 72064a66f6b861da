//! Where a group begins that wants the newest.

use super::super::super::beginning::begin_topic;
use super::*;

#[tokio::test]
async fn what_was_there_before_the_first_start_is_left_out_if_so_wished_and_nothing_after_it() {
    let mut bench = Bench::with_topic();
    bench.settings["start"] = json!("latest");
    bench.put_envelopes(0..30);
    let input = bench.input(true);
    assert!(records(&all(&input).await).is_empty());
    input.close().await;
    // Nothing was read yet, and still what comes now is not skipped by the next start.
    bench.put_envelopes(30..33);
    let input = bench.input(true);
    assert_once(&records(&all(&input).await), 30..33);
    input.close().await;
}

#[tokio::test]
async fn a_partition_that_came_later_is_read_from_its_beginning_whatever_the_start() {
    let mut bench = Bench::with_topic();
    bench.settings["start"] = json!("latest");
    // The group has been at work, and has no position in the last partition: it was added since.
    bench.commit_beginnings(0..PARTITIONS - 1);
    bench.put_envelopes(0..3);
    let input = bench.input(true);
    assert_once(&records(&all(&input).await), 0..3);
    input.close().await;
}

#[tokio::test]
async fn a_group_that_the_brokers_forgot_begins_with_the_oldest_message_since_it_had_begun_before() {
    let mut bench = Bench::with_topic();
    bench.settings["start"] = json!("latest");
    bench.put_envelopes(0..3);
    let input = bench.input(true);
    // No message came to be shipped: all that the state can know is that the group has begun.
    let chunks = all(&input).await;
    assert!(records(&chunks).is_empty());
    bench.keep(&chunks).await;
    input.close().await;

    let mut forgetful = Bench::with_topic();
    forgetful.state = Arc::clone(&bench.state);
    forgetful.settings["start"] = json!("latest");
    forgetful.put_envelopes(0..30);
    let input = forgetful.input(true);
    assert_once(&records(&all(&input).await), 0..30);
    input.close().await;
    // Another group is another beginning.
    forgetful.settings["group"] = json!("other");
    let input = forgetful.input(true);
    assert!(records(&all(&input).await).is_empty());
    input.close().await;
}

#[tokio::test]
async fn a_member_without_the_first_partition_waits_for_the_one_that_has_it() {
    let bench = Bench::with_topic();
    bench.put_envelopes(0..30);
    let outsider = bench.outsider();
    let mut waiting =
        tokio::task::spawn_blocking(move || begin_topic(&outsider, TOPIC, &BTreeSet::from([1]), false));
    let early = tokio::time::timeout(Duration::from_secs(1), &mut waiting).await;
    assert!(early.is_err(), "it began by itself");
    bench.commit_beginnings(0..PARTITIONS);
    waiting.await.unwrap().unwrap();
    assert_eq!((0..PARTITIONS).map(|n| bench.committed(n)).collect::<Vec<_>>(), [0, 0, 0]);
    // The one that has it waits for nobody.
    let fresh = Bench::with_topic();
    fresh.put_envelopes(0..30);
    begin_topic(&fresh.outsider(), TOPIC, &BTreeSet::from([0]), false).unwrap();
    assert_eq!((0..PARTITIONS).map(|n| fresh.committed(n)).collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test]
async fn a_commit_that_fails_for_one_partition_of_several_is_refused_as_a_whole() {
    // What the member relies on: the client tells of one error, and not of which partition it is.
    let bench = Bench::with_topic();
    let mut offsets = rdkafka::TopicPartitionList::new();
    for partition in [PARTITIONS + 7, 0] {
        offsets.add_partition_offset(TOPIC, partition, rdkafka::Offset::Offset(5)).unwrap();
    }
    assert!(bench.outsider().commit(&offsets, rdkafka::consumer::CommitMode::Sync).is_err());
    assert_eq!(bench.committed(0), 5);
}
