//! Sending to the OpenTelemetry Collector.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::ferry::{checked, content, program, succeeded};

/// How long anything may take before the test says that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds.
#[expect(
    clippy::disallowed_methods,
    reason = "another process moves on in real time, and the test only waits for it"
)]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A collector that writes what it gets to a file.
struct Collector {
    directory: TempDir,
    address: SocketAddr,
    process: Child,
}

impl Collector {
    /// Starts one; `receiver` holds further keys of its HTTP receiver.
    fn start(receiver: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Free a moment ago: the collector cannot tell which port it was given.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '{address}', {receiver} }} }} }} }}\n\
             exporters: {{ file: {{ path: '{}', flush_interval: 50ms, append: true }} }}\n\
             service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  \
             pipelines: {{ logs: {{ receivers: [otlp], exporters: [file] }} }}\n",
            directory.path().join("logs.json").display()
        );
        std::fs::write(directory.path().join("collector.yaml"), text).unwrap();
        let process = spawn(directory.path());
        let mut collector = Self { directory, address, process };
        collector.listens();
        collector
    }

    fn listens(&mut self) {
        let (address, log) = (self.address, self.directory.path().join("log"));
        until("the collector listens", || {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the collector ended: {}", std::fs::read_to_string(&log).unwrap());
            TcpStream::connect(address).is_ok()
        });
    }

    /// Ends it in order, so that it writes what it has answered for, and starts it again at the same place.
    fn restart(&mut self) {
        let line = format!("kill -TERM {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
        self.process.wait().unwrap();
        self.process = spawn(self.directory.path());
        self.listens();
    }

    /// How often each request id arrived, by the bodies, which must agree with the attributes in their event's id.
    fn arrived(&self) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(self.directory.path().join("logs.json")).unwrap_or_default();
        let mut arrived = BTreeMap::new();
        for line in text.lines() {
            let Ok(request) = serde_json::from_str::<Value>(line) else { continue };
            let records = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
            for record in records.as_array().unwrap() {
                let body: Value =
                    serde_json::from_str(record["body"]["stringValue"].as_str().unwrap()).unwrap();
                let uid = &record["attributes"][0];
                assert_eq!(
                    (&uid["key"], &uid["value"]["stringValue"]),
                    (&"log.record.uid".into(), &body["event_id"])
                );
                *arrived.entry(body["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        arrived
    }

    fn has_each_once(&self, count: usize) {
        until("all arrive", || self.arrived().len() >= count);
        let arrived = self.arrived();
        assert_eq!(arrived.len(), count);
        assert!(arrived.values().all(|times| *times == 1), "{arrived:?}");
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(directory: &Path) -> Child {
    let program = std::env::var_os("AUDITFERRY_E2E_OTELCOL").unwrap_or_else(|| "otelcol".into());
    Command::new(&program)
        .arg("--config")
        .arg(directory.join("collector.yaml"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.join("log")).unwrap())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot start {program:?}: {error}; go build it in tests/e2e/otelcol and set AUDITFERRY_E2E_OTELCOL"
            )
        })
}

/// A bucket in a directory with objects of 500 records each, and the configuration that sends it to the collector.
fn prepare(objects: usize, collector: &Collector, keys: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let folder = directory.path().join(format!("bucket/workspaceId=1/date={date}"));
    std::fs::create_dir_all(&folder).unwrap();
    for object in 0..objects {
        let numbers: Vec<usize> = (object * 500..object * 500 + 500).collect();
        std::fs::write(folder.join(format!("auditlogs_{object}.json")), content(&numbers)).unwrap();
    }
    let here = directory.path().display();
    let text = format!(
        "state_dir = '{here}/state'\n[inputs.audit]\ntype = 'bucket'\nurl = '{here}/bucket'\n\
         [outputs.otel]\ntype = 'otlp'\nurl = 'http://{}'\nproxy = 'none'\n{keys}\n",
        collector.address
    );
    let config = directory.path().join("auditferry.toml");
    std::fs::write(&config, text).unwrap();
    (directory, config)
}

fn ferry(config: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["120", &program(), "run", "--once", "--config"]).arg(config);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

#[test]
fn every_record_arrives_once_and_readable() {
    let collector = Collector::start("");
    let (_directory, config) = prepare(10, &collector, "");
    let (said, ended) = checked(&config);
    assert!(ended == Some(0) && said.contains("otel (otlp): ok: it takes exports"), "{said}");
    succeeded(&ferry(&config).output().unwrap());
    collector.has_each_once(5000);
}

#[test]
fn a_body_that_the_collector_finds_too_large_is_split_and_no_event_is_to_blame() {
    let collector = Collector::start("max_request_body_size: 100000");
    let (_directory, config) = prepare(2, &collector, "");
    succeeded(&ferry(&config).output().unwrap());
    collector.has_each_once(1000);
}

#[test]
fn a_collector_that_is_restarted_misses_nothing_and_gets_little_twice() {
    let mut collector = Collector::start("");
    let (_directory, config) = prepare(40, &collector, "batch.max_events = 100\nin_flight = 1");
    let mut running = ferry(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("some arrive", || collector.arrived().len() >= 500);
    assert!(running.try_wait().unwrap().is_none(), "it was over before the restart");
    collector.restart();
    assert!(running.wait().unwrap().success());
    until("all arrive", || collector.arrived().len() >= 20_000);
    let arrived = collector.arrived();
    let repeated = arrived.values().filter(|times| **times > 1).count();
    assert!(arrived.len() == 20_000 && repeated <= 100, "{} arrived, {repeated} twice", arrived.len());
}
