//! What a running auditferry tells over HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use auditferry::secret::Secret;
use auditferry::server::Server;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Ferry, Place, has, output, record};

/// Starts the server of a running auditferry, until the set is dropped; gives its address.
async fn serve(ferry: &Ferry) -> (String, JoinSet<std::io::Result<()>>) {
    serve_on(ferry, "127.0.0.1:0", None).await
}

async fn serve_on(
    ferry: &Ferry,
    address: &str,
    token: Option<&str>,
) -> (String, JoinSet<std::io::Result<()>>) {
    let server = Server::bind(address.parse().unwrap(), token.map(Secret::plain), &ferry.app).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], server.address().unwrap().port()));
    let mut serving = JoinSet::new();
    serving.spawn(server.run(CancellationToken::new()));
    (format!("http://{address}"), serving)
}

async fn get(url: String) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The answer, once it has this status.
async fn answers(url: &str, status: u16) -> String {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let (found, text) = get(url.to_owned()).await;
            if found == status {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{url} never answered {status}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_status_tell_what_a_pipeline_does() {
    let (place, hec) = (Place::new(), Collector::start(Protocol::Hec).await);
    place.put("a.json", record("a") + "\nno json\n" + &record("b") + "\n");
    let quick = Duration::from_millis(100);
    let ferry = place.start_with("", &[output(&hec, "")], |app| app.retry_holds_every(quick)).await;
    let (url, _serving) = serve(&ferry).await;
    has(&hec, 2).await;
    ferry.rests().await;
    assert_eq!(get(format!("{url}/healthz")).await, (200, "ok\n".to_owned()));
    assert_eq!(get(format!("{url}/readyz")).await.0, 200);
    let page: Value = serde_json::from_str(&get(format!("{url}/status")).await.1).unwrap();
    let row = &page["pipelines"][0];
    let told =
        ["input", "output", "phase", "events_delivered", "dead_letters"].map(|key| row[key].to_string());
    assert_eq!(told, ["\"audit\"", "\"splunk\"", "\"running\"", "2", "1"]);
    assert!(row["lag_seconds_by_workspace"]["7"].is_number(), "{row}");
    let metrics = get(format!("{url}/metrics")).await.1;
    for line in [
        "auditferry_events_delivered_total{input=\"audit\",output=\"splunk\"} 2",
        "auditferry_dead_letters_total{input=\"audit\",output=\"splunk\",reason=\"not_json\"} 1",
        "auditferry_oldest_unacknowledged_seconds{input=\"audit\",output=\"splunk\"} 0",
        "auditferry_newest_event_timestamp_seconds{input=\"audit\",output=\"splunk\",workspace=\"7\"} 1767609296.007",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing");
    }
    let disk = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let (available, size) =
        (disk("auditferry_state_disk_available_bytes "), disk("auditferry_state_disk_size_bytes "));
    assert!(0 < available && available <= size, "{available} of {size}");

    // A collector that is busy is nobody's business; one that knows the token no more is.
    hec.set_down(Some(503));
    place.put("b.json", record("c") + "\n");
    let retrying = |page: &str| page.contains("\"retrying\"");
    while !retrying(&answers(&format!("{url}/status"), 200).await) {}
    assert_eq!(get(format!("{url}/readyz")).await.0, 200);
    hec.set_down(Some(401));
    let reason = answers(&format!("{url}/readyz"), 503).await;
    assert!(reason.contains("audit/splunk") && reason.contains("401"), "{reason}");
    assert!(!reason.contains("hunter2"));
    assert_eq!(get(format!("{url}/healthz")).await.0, 200);
    hec.set_down(None);
    has(&hec, 3).await;
    answers(&format!("{url}/readyz"), 200).await;
    ferry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_shows_the_last_events_where_that_is_asked_for() {
    for (settings, shown) in [("", 0), ("server.recent_events = 2", 2)] {
        let (mut place, hec) = (Place::new(), Collector::start(Protocol::Hec).await);
        place.settings = settings;
        place.put("a.json", ["a", "b", "c"].map(|id| record(id) + "\n").concat());
        let ferry = place.start("", &[output(&hec, "")]).await;
        has(&hec, 3).await;
        ferry.rests().await;
        let (url, _serving) = serve(&ferry).await;
        let page: Value = serde_json::from_str(&get(format!("{url}/status")).await.1).unwrap();
        let events = page["pipelines"][0]["recent_events"].as_array().map_or(0, Vec::len);
        assert_eq!(events, shown, "{page}");
        if shown > 0 {
            let newest = &page["pipelines"][0]["recent_events"][0];
            assert_eq!(newest["event_time"], "2026-01-05T10:34:56.007Z");
            assert_eq!(newest["action_name"], "login");
            assert!(newest["event_id"].is_string());
        }
        ferry.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_are_those_that_dashboards_were_built_on() {
    let (place, hec) = (Place::new(), Collector::start(Protocol::Hec).await);
    place.put("a.json", record("a") + "\nno json\n");
    let ferry = place.start("", &[output(&hec, "")]).await;
    has(&hec, 1).await;
    ferry.rests().await;
    let found: String = ferry
        .app
        .metrics
        .render()
        .unwrap()
        .lines()
        // The process's own differ from system to system.
        .filter(|line| line.starts_with("# ") && line.contains(" auditferry_"))
        .map(|line| line.to_owned() + "\n")
        .collect();
    ferry.stop().await;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(found == expected, "the metrics changed; UPDATE_GOLDEN=1 writes {}:\n{found}", golden.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_closed_to_others_unless_they_know_the_token() {
    let (place, hec) = (Place::new(), Collector::start(Protocol::Hec).await);
    let ferry = place.start("", &[output(&hec, "")]).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |url: String, authorization: &str| {
        let call = client.get(url).header("accept", "text/html").header("authorization", authorization);
        call.send().await.unwrap().status().as_u16()
    };
    let (url, _open_to_all) = serve_on(&ferry, "0.0.0.0:0", None).await;
    for path in ["/status", "/"] {
        assert_eq!(ask(format!("{url}{path}"), "Bearer anything").await, 403, "{path}");
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(get(format!("{url}{path}")).await.0, 200, "{path}");
    }
    let (url, _locked) = serve_on(&ferry, "127.0.0.1:0", Some("open sesame")).await;
    for path in ["/status", "/"] {
        // `somebody:open sesame` and `open sesame:` in base64
        for (authorization, answer) in [
            ("", 401),
            ("Bearer open", 401),
            ("Bearer open sesame", 200),
            ("Basic c29tZWJvZHk6b3BlbiBzZXNhbWU=", 200),
            ("Basic b3BlbiBzZXNhbWU6", 401),
            ("Digest open sesame", 401),
        ] {
            assert_eq!(ask(format!("{url}{path}"), authorization).await, answer, "{path} {authorization}");
        }
    }
    ferry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_whole_by_itself_and_may_run_nothing_but_its_own_script() {
    let (place, hec) = (Place::new(), Collector::start(Protocol::Hec).await);
    let ferry = place.start("", &[output(&hec, "")]).await;
    let (url, _serving) = serve(&ferry).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(&url).header("accept", "text/html,*/*").send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"),
        "{policy}"
    );
    let page = answer.text().await.unwrap();
    assert!(page.contains("<title>auditferry</title>"));
    for outside in ["http://", "https://", "//", "@import", "src="] {
        let found = page.lines().find(|line| line.contains(outside) && !line.contains("www.w3.org/2000/svg"));
        assert!(found.is_none_or(|line| line.contains("// ")), "{found:?}");
    }
    // Who asks with curl gets the list of paths.
    assert!(get(url).await.1.contains("/metrics"));
    ferry.stop().await;
}
