//! Collectors behind a forward proxy that wants a login.

use std::path::Path;

use tempfile::TempDir;

use crate::ferry::{Ferry, eventually, put, succeeded};
use crate::hec::{Collector, Protocol};
use crate::tinyproxy::{LOGIN, Tinyproxy};
use crate::tls::Authority;

/// A collector that speaks TLS, and the key that trusts it.
async fn collector(directory: &Path) -> (Collector, String) {
    let authority = Authority::new("of the collector");
    let collector = Collector::start_tls(Protocol::Hec, authority.server(None)).await;
    let file = authority.file(directory, "ca.pem");
    (collector, format!("tls.ca_file = \"{}\"", file.display()))
}

fn bucket() -> TempDir {
    let bucket = tempfile::tempdir().unwrap();
    put(bucket.path(), "a", 0..10);
    bucket
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_wants_a_login_is_understood_and_with_it_used() {
    let (directory, bucket, mut proxy) = (tempfile::tempdir().unwrap(), bucket(), Tinyproxy::start());
    let (tls, trusting) = collector(directory.path()).await;
    let plain = Collector::start(Protocol::Hec).await;
    let ferry = |url: &str, login: &str| {
        let keys = format!("{trusting}\nproxy = \"http://{login}{}\"\nno_proxy = \"\"", proxy.address);
        Ferry::to_splunk(&bucket, url, &keys)
    };
    let wants = "the proxy wants a login: write `proxy` (or HTTPS_PROXY) as http://user:password@host:port";
    for (url, login, said) in [
        (tls.url(), "", wants),
        (tls.url(), "ferry:hunter3@", "the proxy would not connect: check the login in `proxy`"),
        (plain.url(), "", wants),
    ] {
        let ferry = ferry(url, login);
        let running = ferry.start();
        eventually(&format!("it says: {said}"), || running.log().contains(said));
        assert!(!running.log().contains("hunter3"), "{}", running.log());
        assert_eq!(running.metric("dead_letters_total"), 0);
    }
    assert!(tls.requests().is_empty() && plain.requests().is_empty());

    let login = format!("{LOGIN}@");
    for collector in [&plain, &tls] {
        let before = proxy.connections();
        let ferry = ferry(collector.url(), &login);
        let running = ferry.start();
        eventually("all arrives", || running.metric("events_delivered_total") == 10);
        assert_eq!(collector.ids().len(), 10);
        assert!(proxy.connections() > before, "it went past the proxy");
    }

    let ferry = ferry(tls.url(), &login);
    let running = ferry.start();
    eventually("all arrives again", || running.metric("events_delivered_total") == 10);
    proxy.kill();
    put(bucket.path(), "b", 10..20);
    eventually("it says who is gone", || running.log().contains("cannot reach the proxy on the way to"));
    proxy.start_again();
    eventually("the rest arrives", || running.metric("events_delivered_total") == 20);
    assert_eq!(tls.ids().len(), 30);
    assert_eq!(running.metric("dead_letters_total"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_of_the_environment_is_used_but_for_the_hosts_that_it_excepts() {
    let (directory, bucket, proxy) = (tempfile::tempdir().unwrap(), bucket(), Tinyproxy::start());
    let (tls, trusting) = collector(directory.path()).await;
    let plain = Collector::start(Protocol::Hec).await;
    let address = format!("http://{LOGIN}@{}", proxy.address);
    for (collector, variable) in [(&tls, "HTTPS_PROXY"), (&plain, "HTTP_PROXY")] {
        // The key is there, so that the helper sets none.
        let keys = format!("{trusting}\n# proxy: of the environment");
        let run = |excepted: &str| {
            let before = proxy.connections();
            let ferry = Ferry::to_splunk(&bucket, collector.url(), &keys);
            succeeded(&ferry.run_with(&[(variable, &address), ("NO_PROXY", excepted)]));
            proxy.connections() - before
        };
        assert!(run("example.com,10.0.0.0/8") > 0, "{variable}");
        assert_eq!(run("example.com,127.0.0.0/8"), 0, "{variable}");
        assert_eq!(run("127.0.0.1"), 0, "{variable}");
        assert_eq!(collector.ids().len(), 30);
    }
}
