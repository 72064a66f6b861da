//! How connections to a collector are made: TLS, client certificates, proxies, their age.

use std::path::Path;
use std::time::Duration;

use auditferry::batch::Request;
use auditferry::compress::Encoding;
use auditferry::format::FormatName;
use auditferry::http::{Client, HttpSettings, TlsSettings};
use auditferry::output::{Output, OutputContext, Verdict, sentinel, sumo};
use auditferry::units::Period;
use reqwest::header::HeaderMap;
use serde_json::json;

use crate::support::collector::{Collector, Protocol, closed_port};
use crate::support::proxy::Proxy;
use crate::support::tls::Authority;

const ACCEPTED: Verdict = Verdict::Accepted { slow_down: false };

fn output(url: &str, http: HttpSettings) -> Box<dyn Output> {
    let context = OutputContext { name: "out".to_owned(), format: FormatName::Sumo, http };
    let url = format!("{url}/receiver/v1/http/hunter2");
    (sumo::KIND.build)(json!({ "url": url }), context).unwrap()
}

fn direct(tls: TlsSettings) -> HttpSettings {
    HttpSettings { tls, proxy: Some("none".to_owned()), ..HttpSettings::default() }
}

async fn send(output: &dyn Output) -> Verdict {
    let body = "{\"event_id\":\"a\"}\n";
    let request =
        Request { body: body.into(), encoding: Encoding::None, events: 1, uncompressed_bytes: body.len() };
    output.send(&request).await
}

/// The request reached nobody, and the message says what to do.
async fn is_not_reached(output: &dyn Output, advice: &str) {
    match send(output).await {
        Verdict::Retry { cause, ambiguous: false, .. } => assert!(cause.contains(advice), "{cause}"),
        other => panic!("{other:?}"),
    }
}

fn trusting(authority: &Authority, directory: &Path) -> TlsSettings {
    TlsSettings { ca_file: Some(authority.file(directory, "ca.pem")), ..TlsSettings::default() }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_by_its_file_and_a_replaced_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("ours"), Authority::new("another"));
    let collector = Collector::start_tls(Protocol::Sumo, ours.server(None)).await;
    is_not_reached(&*output(collector.url(), direct(TlsSettings::default())), "`tls.ca_file`").await;
    let output = output(collector.url(), direct(trusting(&other, directory.path())));
    is_not_reached(&*output, "`tls.ca_file`").await;
    std::fs::write(directory.path().join("ca.pem"), ours.pem() + "\n# replaced\n").unwrap();
    assert_eq!(send(&*output).await, ACCEPTED);
    // What is no certificate does not take away what worked.
    std::fs::write(directory.path().join("ca.pem"), "half a cert").unwrap();
    assert_eq!(send(&*output).await, ACCEPTED);
    assert_eq!(collector.ids().len(), 2);
}

#[tokio::test]
async fn a_collector_that_wants_a_client_certificate_gets_it_and_what_it_refused_it_has_not_seen() {
    let directory = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let collector = Collector::start_tls(Protocol::Sumo, servers.server(Some(&clients))).await;
    let without = trusting(&servers, directory.path());
    is_not_reached(&*output(collector.url(), direct(without.clone())), "`tls.cert_file`").await;
    let [cert, key] = clients.client(directory.path());
    let with = TlsSettings { cert_file: Some(cert), key_file: Some(key), ..without };
    let output = output(collector.url(), direct(with));
    assert_eq!(send(&*output).await, ACCEPTED);
    // Both halves are replaced, one after the other.
    let [cert, key] = Authority::new("unknown").client(directory.path());
    is_not_reached(&*output, "fatal alert").await;
    let [new_cert, new_key] = clients.client(directory.path());
    assert_eq!((new_cert, new_key), (cert, key));
    assert_eq!(send(&*output).await, ACCEPTED);
    assert_eq!(collector.ids().len(), 2);
}

#[tokio::test]
async fn a_server_that_speaks_older_tls_than_allowed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("old");
    let collector = Collector::start_tls(Protocol::Sumo, authority.old_server()).await;
    let trusting = trusting(&authority, directory.path());
    assert_eq!(send(&*output(collector.url(), direct(trusting.clone()))).await, ACCEPTED);
    let strict = TlsSettings { min_version: auditferry::connection::TlsVersion::V1_3, ..trusting };
    is_not_reached(&*output(collector.url(), direct(strict)), "`tls.min_version`").await;
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_and_one_that_nothing_listens_on_are_told_apart() {
    let collector = Collector::start(Protocol::Sumo).await;
    let url = collector.url().replace("http://", "https://");
    is_not_reached(&*output(&url, direct(TlsSettings::default())), "write `url` with http://").await;
    is_not_reached(&*output(&closed_port(), direct(TlsSettings::default())), "nothing listens there").await;
}

#[tokio::test]
async fn a_connection_is_used_again_until_it_is_of_age() {
    for (age, connections) in [(Duration::from_secs(300), 1), (Duration::from_nanos(1), 3)] {
        let collector = Collector::start(Protocol::Sumo).await;
        let settings = HttpSettings { connection_age: Period(age), ..direct(TlsSettings::default()) };
        let output = output(collector.url(), settings);
        for _ in 0..3 {
            assert_eq!(send(&*output).await, ACCEPTED);
        }
        assert_eq!(collector.count_connections(), connections, "{age:?}");
    }
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_not_used_again() {
    let collector = Collector::start(Protocol::Any).await;
    for (idle, connections) in [(Duration::from_secs(300), 1), (Duration::from_millis(20), 3)] {
        let settings = HttpSettings { idle_timeout: Some(idle), ..direct(TlsSettings::default()) };
        let client = Client::new(&settings).unwrap();
        let before = collector.count_connections();
        for _ in 0..3 {
            let answer = client.get(collector.url(), HeaderMap::new()).await.unwrap();
            assert_eq!(answer.status, 200);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(collector.count_connections() - before, connections, "{idle:?}");
    }
}

#[tokio::test]
async fn a_proxy_is_used_but_for_the_hosts_that_are_excepted() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let collector = Collector::start_tls(Protocol::Sumo, authority.server(None)).await;
    let proxy = Proxy::start(None).await;
    let settings = HttpSettings {
        tls: trusting(&authority, directory.path()),
        proxy: Some(proxy.url().to_owned()),
        no_proxy: Some("example.com, 10.0.0.0/8".to_owned()),
        ..HttpSettings::default()
    };
    assert_eq!(send(&*output(collector.url(), settings.clone())).await, ACCEPTED);
    assert_eq!(proxy.targets(), [collector.url().trim_start_matches("https://")]);
    let excepted = HttpSettings { no_proxy: Some("example.com, 127.0.0.0/8".to_owned()), ..settings };
    assert_eq!(send(&*output(collector.url(), excepted)).await, ACCEPTED);
    assert_eq!(proxy.targets().len(), 1);
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_told_from_a_collector_that_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let collector = Collector::start_tls(Protocol::Sumo, authority.server(None)).await;
    let settings = HttpSettings {
        tls: trusting(&authority, directory.path()),
        proxy: Some(closed_port()),
        no_proxy: Some(String::new()),
        ..HttpSettings::default()
    };
    is_not_reached(&*output(collector.url(), settings), "the proxy on the way to 127.0.0.1:").await;
}

#[tokio::test]
async fn a_proxy_behind_tls_may_have_an_authority_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, of_proxy) = (Authority::new("ours"), Authority::new("of the proxy"));
    let collector = Collector::start_tls(Protocol::Sumo, authority.server(None)).await;
    let proxy = Proxy::start(Some(of_proxy.server(None))).await;
    let settings = HttpSettings {
        tls: trusting(&authority, directory.path()),
        proxy: Some(proxy.url().to_owned()),
        no_proxy: Some(String::new()),
        ..HttpSettings::default()
    };
    is_not_reached(&*output(collector.url(), settings.clone()), "").await;
    let proxy_ca_file = Some(of_proxy.file(directory.path(), "proxy.pem"));
    let settings = HttpSettings { proxy_ca_file, ..settings };
    assert_eq!(send(&*output(collector.url(), settings)).await, ACCEPTED);
    assert_eq!(proxy.targets().len(), 1);
}

#[tokio::test]
async fn the_tokens_of_an_output_are_fetched_by_its_proxy_too() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let collector = Collector::start_tls(Protocol::Sentinel, authority.server(None)).await;
    let proxy = Proxy::start(None).await;
    let http = HttpSettings {
        proxy: Some(proxy.url().to_owned()),
        proxy_ca_file: Some(authority.file(directory.path(), "ca.pem")),
        no_proxy: Some(String::new()),
        ..HttpSettings::default()
    };
    let context = OutputContext { name: "out".to_owned(), format: FormatName::Canonical, http };
    let url = collector.url();
    let azure =
        json!({"tenant_id": "t", "client_id": "c", "client_secret": "hunter2", "authority_host": url});
    let table = json!({"url": url, "rule_id": "dcr-1", "stream": "Custom-A", "azure": azure});
    let output = (sentinel::KIND.build)(table, context).unwrap();
    let body = "[{\"event_id\":\"a\"}]";
    let request =
        Request { body: body.into(), encoding: Encoding::None, events: 1, uncompressed_bytes: body.len() };
    assert_eq!(output.send(&request).await, ACCEPTED);
    assert_eq!(proxy.targets(), [collector.address(), collector.address()]);
}
