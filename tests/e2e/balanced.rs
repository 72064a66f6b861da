//! Splunk's protocol through an nginx that knows nothing of it.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use tempfile::TempDir;

use crate::ferry::{Ferry, Running, content, eventually, key};
use crate::hec::{Collector, Protocol};
use crate::nginx::Nginx;

/// Puts an object into the bucket directory, as a store does: at once.
fn put(bucket: &Path, object: &str, numbers: std::ops::Range<usize>) {
    let path = bucket.join(key(1, object));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let partial = path.with_file_name(format!(".{object}.partial"));
    std::fs::write(&partial, content(&numbers.collect::<Vec<_>>())).unwrap();
    std::fs::rename(partial, path).unwrap();
}

/// Ships a directory to Splunk at an address.
fn ferry(bucket: &TempDir, url: &str, keys: &str) -> Ferry {
    let output = format!(
        "[outputs.splunk]\ntype = \"splunk_hec\"\nurl = \"{url}\"\ntoken = \"hunter2\"\nproxy = \"none\"\n\
         batch.max_age = \"50ms\"\n{keys}\n"
    );
    let root = bucket.path().join("logs");
    std::fs::create_dir_all(&root).unwrap();
    Ferry::configured(&root.display().to_string(), "poll_interval = \"1s\"", &output)
}

/// A counter of the pipeline, as Prometheus would read it.
fn metric(running: &Running, name: &str) -> usize {
    let log = running.log();
    let Some((_, rest)) = log.split_once("listening on http://") else { return 0 };
    let address: String = rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("auditferry_{name}{{")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

fn backend(collector: &Collector) -> &str {
    collector.url().trim_start_matches("http://")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_indexers_without_stickiness_lose_nothing_when_one_dies() {
    let (dying, living) = (Collector::start(Protocol::Hec).await, Collector::start(Protocol::Hec).await);
    for indexer in [&dying, &living] {
        indexer.set_acknowledging(true);
    }
    let nginx = Nginx::start(&[backend(&dying), backend(&living)], "");
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..100);
    let keys = "ack = true\nack_timeout = \"5s\"\nbatch.max_events = 5";
    let ferry = ferry(&bucket, &nginx.url, keys);
    let running = ferry.start();
    eventually("all is safe", || metric(&running, "events_delivered_total") == 100);
    // From here on one of them takes events and makes none of them safe.
    dying.set_acknowledging(false);
    put(bucket.path(), "b", 100..200);
    eventually("all is sent", || dying.ids().len() + living.ids().len() >= 200);
    let (safe, arrived) = (dying.safe_ids(), dying.ids().len());
    assert!(!safe.is_empty() && arrived > safe.len(), "{} of {arrived} are safe", safe.len());
    drop(dying);
    eventually("all is safe again", || metric(&running, "events_delivered_total") == 200);
    let resent = metric(&running, "ambiguous_resends_total");
    assert_eq!(metric(&running, "dead_letters_total"), 0);
    let kept: HashSet<String> = safe.into_iter().chain(living.ids()).collect();
    assert_eq!(kept.len(), 200);
    assert_eq!(arrived + living.ids().len(), 200 + resent, "each repeat is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_nginx_takes_for_too_large_is_split_and_502_is_waited_out() {
    let collector = Collector::start(Protocol::Hec).await;
    let nginx = Nginx::start(&[backend(&collector)], "client_max_body_size 20k;");
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..200);
    let ferry = ferry(&bucket, &nginx.url, "compression = \"none\"\nbatch.max_bytes = \"100KB\"");
    let running = ferry.start();
    eventually("all has arrived", || metric(&running, "events_delivered_total") == 200);
    assert_eq!(metric(&running, "dead_letters_total"), 0);
    let resent = metric(&running, "ambiguous_resends_total");
    let distinct: HashSet<String> = collector.ids().into_iter().collect();
    assert_eq!((distinct.len(), collector.ids().len()), (200, 200), "{resent} were sent again in doubt");
    // nginx answers for a backend that is gone.
    drop(collector);
    put(bucket.path(), "b", 200..210);
    eventually("it is waited for", || metric(&running, "retries_total") > 0);
    eventually("nginx said so", || running.log().contains("502"));
    assert_eq!(metric(&running, "dead_letters_total"), 0);
}
