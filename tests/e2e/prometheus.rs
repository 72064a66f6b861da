//! Watched by Prometheus: the alerts fire on what they are for, and the dashboard's panels have data.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use auditferry::http::{Client, HttpSettings};
use reqwest::header::HeaderMap;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::ferry::{Ferry, succeeded};
use crate::hec::{Collector, Protocol, Step};

const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(200);
const HOUR_MILLIS: i64 = 3_600_000;
/// Of a lag that the alert speaks up about, and of a silence.
const LATE: i64 = 3 * HOUR_MILLIS;
const SILENT: i64 = 25 * HOUR_MILLIS;

/// A Prometheus of its own, which scrapes one address every half second.
struct Prometheus {
    url: String,
    process: Child,
    directory: TempDir,
}

impl Prometheus {
    async fn start(target: &str, rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("rules.yaml"), rules).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\nrule_files: [rules.yaml]\n\
             scrape_configs: [ {{ job_name: auditferry, static_configs: [ {{ targets: [\"{target}\"] }} ] }} ]\n"
        );
        std::fs::write(directory.path().join("prometheus.yaml"), config).unwrap();
        // Free a moment ago: Prometheus does not tell which port it was given.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let program = program("prometheus");
        let process = Command::new(&program)
            .args(["--config.file", "prometheus.yaml", "--storage.tsdb.path", "data", "--log.level", "warn"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program:?}: {error}; {ADVICE}"));
        Self { url: format!("http://{address}"), process, directory }
    }

    async fn ask(&self, path: &str) -> Option<Value> {
        let settings = HttpSettings { proxy: Some("none".to_owned()), ..HttpSettings::default() };
        let answer =
            Client::new(&settings).unwrap().get(&format!("{}{path}", self.url), HeaderMap::new()).await;
        serde_json::from_slice(&answer.ok()?.body).ok()
    }

    /// The alerts that fire now.
    async fn firing(&self) -> BTreeSet<String> {
        let answer = self.ask("/api/v1/alerts").await.unwrap_or_default();
        let alerts = answer.pointer("/data/alerts").and_then(Value::as_array).cloned().unwrap_or_default();
        alerts
            .iter()
            .filter(|alert| alert["state"] == "firing")
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// How many series answer a query.
    async fn count(&self, query: &str) -> usize {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let answer = self.ask(&format!("/api/v1/query?{query}")).await.unwrap_or_default();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }

    /// Waits until all of these fire, and have fired: what passes must not be missed.
    async fn fires(&self, seen: &mut BTreeSet<String>, expected: &[&str]) {
        let start = Instant::now();
        loop {
            seen.extend(self.firing().await);
            let missing: Vec<_> = expected.iter().filter(|name| !seen.contains(**name)).collect();
            if missing.is_empty() {
                return;
            }
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap();
            assert!(start.elapsed() < PATIENCE, "{missing:?} do not fire; {}", log());
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const ADVICE: &str =
    "apt-get install prometheus, or set AUDITFERRY_E2E_PROMETHEUS to the directory of its programs";

fn program(name: &str) -> PathBuf {
    match std::env::var_os("AUDITFERRY_E2E_PROMETHEUS") {
        Some(directory) => Path::new(&directory).join(name),
        None => name.into(),
    }
}

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

/// The shipped rules without their patience: a test cannot wait for ten minutes.
fn impatient_rules() -> String {
    let rules = std::fs::read_to_string(packaging("prometheus/alerts.yaml")).unwrap();
    let kept = rules.lines().filter(|line| !line.trim_start().starts_with("for:"));
    let rules: String = kept.map(|line| line.to_owned() + "\n").collect();
    let old = "auditferry_oldest_unacknowledged_seconds > 600";
    assert!(rules.contains(old), "the rule is another one now");
    rules.replace(old, "auditferry_oldest_unacknowledged_seconds > 1")
}

/// A small file system for the state, so that there is little room on it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(at).output().unwrap();
        // Only root may mount.
        succeeded(&mounted);
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A record of a workspace, `age` milliseconds old.
fn aged(workspace: u64, name: &str, age: i64) -> String {
    let time = jiff::Timestamp::now().as_millisecond() - age;
    format!(
        r#"{{"version":"2.0","timestamp":{time},"orgId":"{workspace}","serviceName":"accounts","actionName":"login","requestId":"{name}","requestParams":{{"password":"hunter2"}}}}"#
    ) + "\n"
}

/// Puts an object of today in a directory that is a bucket.
fn put(bucket: &Path, workspace: u64, name: &str, content: &str) {
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let folder = bucket.join(format!("workspaceId={workspace}/date={today}"));
    std::fs::create_dir_all(&folder).unwrap();
    let partial = bucket.join("partial");
    std::fs::write(&partial, content).unwrap();
    std::fs::rename(partial, folder.join(name)).unwrap();
}

/// The queries of all panels, with what Grafana puts in place of its variables.
fn panel_queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(packaging("grafana/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "10s");
            let query =
                ["$job", "$input", "$output"].iter().fold(query, |query, name| query.replace(name, ".*"));
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

#[test]
fn the_rules_are_right_by_prometheus_own_tests() {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let program = program("promtool");
        let output = Command::new(&program)
            .args(arguments)
            .current_dir(packaging("prometheus"))
            .output()
            .unwrap_or_else(|error| panic!("cannot start {program:?}: {error}; {ADVICE}"));
        succeeded(&output);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_alert_fires_and_every_panel_has_data() {
    let hec = Collector::start(Protocol::Hec).await;
    let place = tempfile::tempdir().unwrap();
    let bucket = place.path().join("bucket");
    let disk = SmallDisk::mount(&place.path().join("state"));
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ferry = Ferry::whole(&format!(
        r#"
        state_dir = "{}"

        [server]
        listen = "{address}"

        [inputs.audit]
        type = "bucket"
        url = "file://{}"
        poll_interval = "1s"
        verify_whole_below = "0B"

        [inputs.gone]
        type = "bucket"
        url = "s3://gone/logs"
        poll_interval = "1s"

        [inputs.gone.s3]
        endpoint = "http://127.0.0.1:1"
        allow_http = true
        access_key_id = "nobody"
        secret_access_key = "secret"

        [outputs.splunk]
        type = "splunk_hec"
        url = "{}"
        token = "hunter2"
        batch.max_age = "100ms"
        "#,
        disk.0.display(),
        bucket.display(),
        hec.url()
    ));
    put(&bucket, 7, "a.json", &(aged(7, "a", LATE) + &aged(7, "b", LATE) + "no json\n"));
    put(&bucket, 8, "a.json", &aged(8, "c", SILENT));
    let running = ferry.start();
    let prometheus = Prometheus::start(&address.to_string(), &impatient_rules()).await;
    let mut seen = BTreeSet::new();
    hec.keeps(3).await;
    prometheus
        .fires(
            &mut seen,
            &[
                "AuditferryDeadLetters",
                "AuditferryWorkspaceSilent",
                "AuditferryStateDisk",
                "AuditferryInputErrors",
            ],
        )
        .await;

    // A line changes that was shipped, and there is a newer one; the collector hangs up when it has it.
    hec.push(Step::hang_up().keeping());
    put(&bucket, 7, "a.json", &(aged(7, "d", LATE) + &aged(7, "e", LATE) + &aged(7, "f", LATE)));
    prometheus
        .fires(&mut seen, &["AuditferryLag", "AuditferryPrefixMismatch", "AuditferryAmbiguousResends"])
        .await;
    let empty = async || {
        let mut empty = Vec::new();
        for (title, query) in panel_queries() {
            if prometheus.count(&query).await == 0 {
                empty.push(format!("{title}: {query}"));
            }
        }
        empty
    };
    let start = Instant::now();
    loop {
        let empty = empty().await;
        if empty.is_empty() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no data: {empty:#?}");
        // Requests are under way now and then only.
        put(&bucket, 7, &format!("{:?}.json", start.elapsed()), &aged(7, "g", 0));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    ferry.configure("[outputs.splunk]\ntype = \"no such thing\"\n");
    running.signal("HUP");
    prometheus.fires(&mut seen, &["AuditferryReloadRefused"]).await;
    hec.set_down(Some(401));
    put(&bucket, 9, "a.json", &aged(9, "h", 0));
    prometheus.fires(&mut seen, &["AuditferryHold", "AuditferryNotDelivering"]).await;
    drop(running);
    prometheus.fires(&mut seen, &["AuditferryDown"]).await;

    let rules = std::fs::read_to_string(packaging("prometheus/alerts.yaml")).unwrap();
    let all: BTreeSet<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    assert_eq!(seen, all);
}
