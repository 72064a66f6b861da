//! Splunk's protocol through an nginx that knows nothing of it.

use std::collections::HashSet;

use crate::ferry::{Ferry, eventually, put};
use crate::hec::{Collector, Protocol};
use crate::nginx::Nginx;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_indexers_without_stickiness_lose_nothing_when_one_dies() {
    let (dying, living) = (Collector::start(Protocol::Hec).await, Collector::start(Protocol::Hec).await);
    for indexer in [&dying, &living] {
        indexer.set_acknowledging(true);
    }
    let nginx = Nginx::start(&[dying.address(), living.address()], "");
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..100);
    let keys = "ack = true\nack_timeout = \"5s\"\nbatch.max_events = 5";
    let ferry = Ferry::to_splunk(&bucket, &nginx.url, keys);
    let running = ferry.start();
    eventually("all is safe", || running.metric("events_delivered_total") == 100);
    // From here on one of them takes events and makes none of them safe.
    dying.set_acknowledging(false);
    put(bucket.path(), "b", 100..200);
    eventually("all is sent", || dying.ids().len() + living.ids().len() >= 200);
    let (safe, arrived) = (dying.safe_ids(), dying.ids().len());
    assert!(!safe.is_empty() && arrived > safe.len(), "{} of {arrived} are safe", safe.len());
    drop(dying);
    eventually("all is safe again", || running.metric("events_delivered_total") == 200);
    let resent = running.metric("ambiguous_resends_total");
    assert_eq!(running.metric("dead_letters_total"), 0);
    let kept: HashSet<String> = safe.into_iter().chain(living.ids()).collect();
    assert_eq!(kept.len(), 200);
    assert_eq!(arrived + living.ids().len(), 200 + resent, "each repeat is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_nginx_takes_for_too_large_is_split_and_502_is_waited_out() {
    let collector = Collector::start(Protocol::Hec).await;
    let nginx = Nginx::start(&[collector.address()], "client_max_body_size 20k;");
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..200);
    let ferry = Ferry::to_splunk(&bucket, &nginx.url, "compression = \"none\"\nbatch.max_bytes = \"100KB\"");
    let running = ferry.start();
    eventually("all has arrived", || running.metric("events_delivered_total") == 200);
    assert_eq!(running.metric("dead_letters_total"), 0);
    let resent = running.metric("ambiguous_resends_total");
    let distinct: HashSet<String> = collector.ids().into_iter().collect();
    assert_eq!((distinct.len(), collector.ids().len()), (200, 200), "{resent} were sent again in doubt");
    // The size is remembered: what comes later is hardly ever too large.
    let refusals = || nginx.answered().iter().filter(|request| request.status == "413").count();
    let before = refusals();
    put(bucket.path(), "later", 1000..1400);
    eventually("all of it has arrived", || running.metric("events_delivered_total") == 600);
    assert!(before >= 1 && refusals() <= before + 1, "{} after {before}", refusals());
    // nginx answers for a backend that is gone.
    drop(collector);
    put(bucket.path(), "b", 200..210);
    eventually("it is waited for", || running.metric("retries_total") > 0);
    eventually("nginx said so", || running.log().contains("502"));
    assert_eq!(running.metric("dead_letters_total"), 0);
}
