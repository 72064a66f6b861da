//! Sending to Grafana Loki.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use auditferry::dead_letter::file as dead_letters;
use auditferry::http::{Client, HttpSettings};
use reqwest::header::HeaderMap;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::ferry::{checked, program, record};

/// How long anything may take before the test says that it hangs.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);
const MINUTE: i64 = 60_000;

/// A Loki of its own.
struct Loki {
    address: SocketAddr,
    process: Child,
    directory: TempDir,
}

impl Loki {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Free a moment ago: Loki cannot tell which ports it was given.
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, grpc] = ports.each_ref().map(|port| port.local_addr().unwrap());
        drop(ports);
        let here = directory.path().display();
        let text = format!(
            "auth_enabled: false\n\
             server: {{ http_listen_address: 127.0.0.1, http_listen_port: {}, grpc_listen_address: 127.0.0.1, \
             grpc_listen_port: {}, log_level: warn }}\n\
             common:\n  instance_addr: 127.0.0.1\n  path_prefix: {here}/data\n  replication_factor: 1\n  \
             ring: {{ kvstore: {{ store: inmemory }} }}\n  storage: {{ filesystem: {{ chunks_directory: {here}/chunks, \
             rules_directory: {here}/rules }} }}\n\
             schema_config: {{ configs: [ {{ from: 2020-01-01, store: tsdb, object_store: filesystem, schema: v13, \
             index: {{ prefix: index_, period: 24h }} }} ] }}\n\
             limits_config: {{ max_query_series: 10000 }}\nanalytics: {{ reporting_enabled: false }}\n",
            address.port(),
            grpc.port()
        );
        std::fs::write(directory.path().join("loki.yaml"), text).unwrap();
        let program = std::env::var_os("AUDITFERRY_E2E_LOKI").unwrap_or_else(|| "loki".into());
        let process = Command::new(&program)
            .arg(format!("-config.file={here}/loki.yaml"))
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {program:?}: {error}; build it in tests/e2e/loki and set AUDITFERRY_E2E_LOKI")
            });
        let mut loki = Self { address, process, directory };
        loki.is_up().await;
        loki
    }

    async fn is_up(&mut self) {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap();
            assert!(self.process.try_wait().unwrap().is_none(), "Loki ended: {}", log());
            assert!(start.elapsed() < PATIENCE, "Loki does not listen: {}", log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A number that Loki answers a question with.
    async fn asked(&self, question: &str) -> Option<u64> {
        let client =
            Client::new(&HttpSettings { proxy: Some("none".to_owned()), ..HttpSettings::default() }).unwrap();
        let mut query =
            form_urlencoded::Serializer::new(format!("http://{}/loki/api/v1/query?", self.address));
        query.append_pair("query", question);
        let answer = client.get(&query.finish(), HeaderMap::new()).await.ok()?;
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        answer.pointer("/data/result/0/value/1")?.as_str()?.parse().ok()
    }

    /// Fails unless it has so many entries, each with an id of its own.
    async fn has_each_once(&self, count: u64) {
        let (entries, ids) = (
            "sum(count_over_time({job=\"databricks-audit\"}[12h]))",
            "count(sum by (event_id) (count_over_time({job=\"databricks-audit\"}[12h])))",
        );
        let start = Instant::now();
        while self.asked(entries).await < Some(count) {
            assert!(start.elapsed() < PATIENCE, "{:?} of {count} arrived", self.asked(entries).await);
            tokio::time::sleep(LOOK).await;
        }
        assert_eq!((self.asked(entries).await, self.asked(ids).await), (Some(count), Some(count)));
    }
}

impl Drop for Loki {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A record of one of two workspaces that happened so many milliseconds ago, with its line end.
fn ago(number: usize, millis: i64) -> String {
    let then = jiff::Timestamp::now().as_millisecond() - millis;
    let made = format!("\"timestamp\":{}", 1_767_609_296_123 + number);
    let workspace = format!("\"orgId\":\"{}\"", 1 + number % 2);
    record(number).replace(&made, &format!("\"timestamp\":{then}")).replace("\"orgId\":\"1\"", &workspace)
        + "\n"
}

/// Ships an object of these lines; how the run ended.
fn ship(directory: &Path, loki: &Loki, lines: &str) -> Option<i32> {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let folder = directory.join(format!("bucket/workspaceId=1/date={date}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("auditlogs_a.json"), lines).unwrap();
    let here = directory.display();
    let text = format!(
        "state_dir = '{here}/state'\n[inputs.audit]\ntype = 'bucket'\nurl = '{here}/bucket'\n\
         [outputs.loki]\ntype = 'loki'\nurl = 'http://{}'\nproxy = 'none'\nin_flight = 1\n",
        loki.address
    );
    std::fs::write(directory.join("auditferry.toml"), text).unwrap();
    let ended = Command::new("timeout")
        .args(["120", &program(), "run", "--once", "--config"])
        .arg(directory.join("auditferry.toml"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    ended.unwrap().code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_an_entry_once() {
    let (loki, directory) = (Loki::start().await, tempfile::tempdir().unwrap());
    let lines: String = (0..5000).map(|number| ago(number, MINUTE)).collect();
    assert_eq!(ship(directory.path(), &loki, &lines), Some(0));
    let (said, ended) = checked(&directory.path().join("auditferry.toml"));
    assert!(ended == Some(0) && said.contains("loki (loki): ok: it answers"), "{said}");
    loki.has_each_once(5000).await;
    let half = "sum(count_over_time({workspace_id=\"2\"} | service=\"jobs\" | action=\"create\" [1h]))";
    assert_eq!(loki.asked(half).await, Some(2500), "labels and metadata can be searched by");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_loki_refuses_are_dead_letters_and_no_other_is_missing_or_there_twice() {
    let (loki, directory) = (Loki::start().await, tempfile::tempdir().unwrap());
    let mut lines: Vec<String> = (0..300).map(|number| ago(number, MINUTE)).collect();
    let refused = [
        (50, ago(1000, 180 * MINUTE), "too far behind"),
        (120, ago(1001, 200 * MINUTE), "too far behind"),
        (121, ago(1002, 40 * 24 * 60 * MINUTE), "too old"),
        (200, ago(1003, MINUTE).replace("nightly-load", &"x".repeat(300_000)), "max entry size"),
        (299, ago(1004, 50 * 24 * 60 * MINUTE), "too old"),
    ];
    for (place, line, _) in refused.iter().rev() {
        lines.insert(*place, line.clone());
    }
    assert_eq!(ship(directory.path(), &loki, &lines.concat()), Some(1), "there are dead letters");
    loki.has_each_once(300).await;
    let files = dead_letters::list(&directory.path().join("state")).unwrap();
    let letters: Vec<_> = files
        .iter()
        .flat_map(|file| dead_letters::read(&file.path).unwrap())
        .map(|kept| kept.unwrap().letter)
        .collect();
    assert_eq!(letters.len(), refused.len());
    for (_, line, said) in &refused {
        let letter = letters.iter().find(|letter| letter.record == line.trim_end());
        let letter = letter.unwrap_or_else(|| panic!("{said}: no dead letter"));
        assert!(letter.detail.contains(said), "{}", letter.detail);
    }
}
