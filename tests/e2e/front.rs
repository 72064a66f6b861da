//! What stands before a collector: an nginx that wants certificates, loses patience, or has lost its backend.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::ferry::{Ferry, Running, eventually, put};
use crate::hec::{Collector, Protocol, Step};
use crate::nginx::{Answered, Nginx};
use crate::tls::Authority;

/// Waits until so many events are delivered.
fn delivers(running: &Running, count: usize) {
    eventually(&format!("{count} events are delivered"), || {
        running.metric("events_delivered_total") == count
    });
}

/// The collector has so many events, each once, and there is no dead letter.
fn has_each_once(collector: &Collector, running: &Running, count: usize) {
    let distinct: HashSet<String> = collector.ids().into_iter().collect();
    assert_eq!((distinct.len(), collector.ids().len()), (count, count));
    assert_eq!(running.metric("dead_letters_total"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_that_wants_a_client_certificate_is_understood_and_gets_the_one_that_lies_on_disk() {
    let collector = Collector::start(Protocol::Hec).await;
    let directory = tempfile::tempdir().unwrap();
    let [servers, first, second, strangers] =
        ["servers", "first clients", "second clients", "strangers"].map(Authority::new);
    let trusted = directory.path().join("trusted.pem");
    std::fs::write(&trusted, first.pem() + &second.pem()).unwrap();
    let settings = format!("ssl_client_certificate {};\nssl_verify_client on;", trusted.display());
    let pair = servers.pair(directory.path(), "server");
    let nginx = Nginx::start_tls(&[collector.address()], &pair, &settings);
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..10);
    let authority = format!("tls.ca_file = \"{}\"", servers.file(directory.path(), "ca.pem").display());
    let without = Ferry::to_splunk(&bucket, &nginx.url, &authority);
    let running = without.start();
    eventually("it says what is missing", || {
        running.log().contains("it wants a client certificate: set `tls.cert_file` and `tls.key_file`")
    });
    assert_eq!(running.metric("dead_letters_total"), 0);
    drop(running);

    let [certificate, key] = strangers.client(directory.path());
    let keys = format!(
        "{authority}\ntls.cert_file = \"{}\"\ntls.key_file = \"{}\"",
        certificate.display(),
        key.display()
    );
    let with = Ferry::to_splunk(&bucket, &nginx.url, &keys);
    let running = with.start();
    eventually("it says what is wrong", || {
        running.log().contains("it does not take our client certificate: check the authority and the dates")
    });
    assert!(collector.ids().is_empty());
    // Renewed on disk, twice: nothing is restarted.
    first.client(directory.path());
    delivers(&running, 10);
    second.client(directory.path());
    put(bucket.path(), "b", 10..20);
    delivers(&running, 20);
    has_each_once(&collector, &running, 20);
    let taken: Vec<Answered> =
        nginx.answered().into_iter().filter(|request| request.status == "200").collect();
    let issuers: Vec<&str> = taken.iter().map(|request| request.issuer.as_str()).collect();
    assert_eq!(issuers, ["CN=first clients", "CN=second clients"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_nginx_closed_while_it_was_idle_fails_and_repeats_nothing() {
    let collector = Collector::start(Protocol::Hec).await;
    let nginx = Nginx::start(&[collector.address()], "keepalive_timeout 1s;");
    let bucket = tempfile::tempdir().unwrap();
    let ferry = Ferry::to_splunk(&bucket, &nginx.url, "");
    let running = ferry.start();
    let rounds = 4;
    for round in 0..rounds {
        put(bucket.path(), &format!("{round}"), round * 10..round * 10 + 10);
        delivers(&running, round * 10 + 10);
        let idle_since = Instant::now();
        eventually("nginx closes it", || idle_since.elapsed() > Duration::from_secs(2));
    }
    has_each_once(&collector, &running, rounds * 10);
    assert_eq!((running.metric("retries_total"), running.metric("ambiguous_resends_total")), (0, 0));
    let answered = nginx.answered();
    let connections: HashSet<&str> = answered.iter().map(|request| request.connection.as_str()).collect();
    assert_eq!((answered.len(), connections.len()), (rounds, rounds), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nginx_says_for_a_backend_that_died_is_waited_out() {
    let mut collector = Collector::start(Protocol::Hec).await;
    let nginx = Nginx::start(&[collector.address()], "");
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..10);
    let ferry = Ferry::to_splunk(&bucket, &nginx.url, "");
    let running = ferry.start();
    delivers(&running, 10);
    collector.crash().await;
    put(bucket.path(), "b", 10..20);
    eventually("it is tried again and again", || running.metric("retries_total") >= 2);
    collector.rise().await;
    delivers(&running, 20);
    has_each_once(&collector, &running, 20);
    let statuses: HashSet<String> = nginx.answered().into_iter().map(|request| request.status).collect();
    assert_eq!(statuses, HashSet::from(["200", "502"].map(str::to_owned)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nginx_lost_patience_with_is_sent_again_and_counted_since_it_may_have_arrived() {
    let collector = Collector::start(Protocol::Hec).await;
    let success = json!({"text": "Success", "code": 0}).to_string();
    collector.push(Step::answer(200, success).keeping().delayed(Duration::from_secs(5)));
    let nginx = Nginx::start(&[collector.address()], "proxy_read_timeout 1s;");
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..10);
    let ferry = Ferry::to_splunk(&bucket, &nginx.url, "");
    let running = ferry.start();
    delivers(&running, 10);
    assert_eq!(collector.ids().len(), 20);
    assert_eq!(running.metric("ambiguous_resends_total"), 10);
    let statuses: Vec<String> = nginx.answered().into_iter().map(|request| request.status).collect();
    assert_eq!(statuses, ["504", "200"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nginx_refuses_for_its_number_was_not_taken_and_comes_later() {
    let collector = Collector::start(Protocol::Hec).await;
    let nginx = Nginx::start(&[collector.address()], "limit_req zone=scarce;");
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..60);
    let ferry = Ferry::to_splunk(&bucket, &nginx.url, "batch.max_events = 10");
    let running = ferry.start();
    delivers(&running, 60);
    has_each_once(&collector, &running, 60);
    assert_eq!(running.metric("ambiguous_resends_total"), 0);
    let refused = nginx.answered().iter().filter(|request| request.status == "503").count();
    assert!(refused > 0 && running.metric("retries_total") == refused, "{refused}");
}
