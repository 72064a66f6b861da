//! Shipping to a real OpenSearch: its refusals, its limits, its restarts.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ferry::{record, succeeded};
use crate::opensearch::{OpenSearch, eventually};
use crate::recorder::Recorder;

/// A directory that is a bucket, and the binary that ships it to OpenSearch.
struct Shipper {
    directory: TempDir,
}

impl Shipper {
    /// Ships to an address, with further keys of the output.
    fn new(url: &str, keys: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().display();
        let text = format!(
            r#"
            state_dir = "{here}/state"
            server.listen = "none"

            [inputs.audit]
            type = "bucket"
            url = "{here}/bucket"

            [outputs.search]
            type = "elastic"
            url = "{url}"
            proxy = "none"
            {keys}
            "#
        );
        std::fs::write(directory.path().join("auditferry.toml"), text).unwrap();
        Self { directory }
    }

    /// Puts an object of today into the bucket.
    fn deliver(&self, name: &str, content: &str) {
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let folder = self.directory.path().join(format!("bucket/workspaceId=7/date={today}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("auditlogs_{name}.json")), content).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["300", env!("CARGO_BIN_EXE_auditferry")])
            .args(arguments)
            .args(["--config", "auditferry.toml"])
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Ships what there is.
    fn run(&self) -> Output {
        self.command(&["run", "--once"]).output().unwrap()
    }

    /// Ships what there is, beside the test.
    fn start(&self) -> Child {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        self.command(&["run", "--once"]).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// The dead letters, one line each.
    fn letters(&self) -> String {
        lines_below(&self.directory.path().join("state/dead-letters"))
    }
}

fn lines_below(directory: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(directory) else { return String::new() };
    let read = |path: &Path| match path.is_dir() {
        true => lines_below(path),
        false => std::fs::read_to_string(path).unwrap(),
    };
    entries.map(|entry| read(&entry.unwrap().path())).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Records `numbers`, with a parameter `port` that is a number.
fn records(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| with_port(number, "22") + "\n").collect()
}

fn with_port(number: usize, port: &str) -> String {
    record(number).replace(r#""requestParams":{"#, &format!(r#""requestParams":{{"port":"{port}","#))
}

#[test]
fn of_ten_thousand_events_the_server_refuses_one_and_says_why() {
    let server = OpenSearch::start(&[]);
    server.put(
        "/audit",
        &json!({"mappings": {"properties": {"request_params": {"properties": {"port": {"type": "integer"}}}}}}),
    );
    let shipper = Shipper::new(&server.url(), "index = 'audit'");
    let content = records(0..7777) + &with_port(7777, "ssh") + "\n" + &records(7778..10_000);
    shipper.deliver("a", &content);
    let ended = shipper.run();
    assert_eq!(ended.status.code(), Some(1), "{}", said(&ended));
    assert_eq!(server.count("audit"), 9_999);
    let letters = shipper.letters();
    assert_eq!(letters.lines().count(), 1, "{letters}");
    for expected in
        ["mapper_parsing_exception", "request_params.port", "For input string: \\\"ssh\\\"", "request-007777"]
    {
        assert!(letters.contains(expected), "{expected}: {letters}");
    }
}

#[test]
fn a_queue_that_is_full_loses_and_doubles_nothing() {
    let server = OpenSearch::start(&["thread_pool.write.size=1", "thread_pool.write.queue_size=1"]);
    let index = json!({"settings": {"number_of_shards": 5, "number_of_replicas": 0}});
    server.put("/audit", &index);
    let keys = "index = 'audit'\nin_flight = 8\nbatch.max_events = 200";
    let shipper = Shipper::new(&server.url(), keys);
    for object in 0..4 {
        shipper.deliver(&object.to_string(), &records(object * 1000..object * 1000 + 1000));
    }
    succeeded(&shipper.run());
    let pool = &server.get("/_nodes/stats/thread_pool")["nodes"];
    let rejected =
        pool.as_object().unwrap().values().next().unwrap()["thread_pool"]["write"]["rejected"].clone();
    assert!(rejected.as_u64().unwrap() > 0, "the queue was never full: {pool}");
    assert_eq!(server.count("audit"), 4000);
    assert_eq!(shipper.letters(), "");
}

#[test]
fn a_body_over_the_servers_limit_is_split_and_the_size_is_remembered() {
    let server = OpenSearch::start(&["http.max_content_length=100kb"]);
    let recorder = Recorder::start(server.address);
    let keys = "index = 'audit'\nin_flight = 1\ncompression = 'none'";
    let shipper = Shipper::new(&format!("http://{}", recorder.address), keys);
    shipper.deliver("a", &records(0..5000));
    let ended = shipper.run();
    succeeded(&ended);
    assert_eq!(server.count("audit"), 5000);
    assert_eq!(shipper.letters(), "");
    // From two megabytes down to less than 100 kB; what was batched by then is split unasked.
    let refused = recorder.answered().matches("HTTP/1.1 413").count();
    assert!((5..=8).contains(&refused), "{refused} refused\n{}", said(&ended));
}

#[test]
fn a_disk_over_its_flood_stage_holds_everything_until_there_is_room() {
    let server = OpenSearch::start(&["cluster.info.update.interval=10s"]);
    let shipper = Shipper::new(&server.url(), "index = 'audit'");
    shipper.deliver("a", &records(0..10));
    succeeded(&shipper.run());
    let watermarks = |free: Value| {
        let settings = json!({"persistent": {"cluster.routing.allocation.disk.watermark": {
            "low": free, "high": free, "flood_stage": free
        }}});
        server.put("/_cluster/settings", &settings);
    };
    let blocked = || {
        let settings = server.get("/audit/_settings");
        settings["audit"]["settings"]["index"]["blocks"]["read_only_allow_delete"] == "true"
    };
    // No disk has a petabyte free: all are over their flood stage.
    watermarks(json!("1pb"));
    eventually("the server blocks writes", blocked);
    shipper.deliver("b", &records(10..20));
    let held = shipper.run();
    assert_eq!(held.status.code(), Some(2), "{}", said(&held));
    let log = said(&held);
    assert!(
        log.contains("disk usage exceeded flood-stage watermark") && log.contains("free disk space"),
        "{log}"
    );
    watermarks(Value::Null);
    eventually("the server takes writes", || !blocked());
    succeeded(&shipper.run());
    assert_eq!(server.count("audit"), 20);
    assert_eq!(shipper.letters(), "");
}

#[test]
fn two_restarts_of_the_server_during_200_000_events_leave_exactly_200_000_documents() {
    const EVENTS: usize = 200_000;
    let mut server = OpenSearch::start(&[]);
    let shipper = Shipper::new(&server.url(), "index = 'audit'\nbatch.max_events = 1000");
    server.put("/audit", &json!({"settings": {"number_of_replicas": 0}}));
    for object in 0..10 {
        let first = object * EVENTS / 10;
        shipper.deliver(&object.to_string(), &records(first..first + EVENTS / 10));
    }
    let mut run = shipper.start();
    for restart in 1..=2 {
        eventually("a third more is there", || server.count("audit") >= restart * 60_000);
        if restart == 1 {
            server.stop();
        } else {
            server.kill();
        }
        server.start_again();
        server.call(Method::GET, "/_cluster/health?wait_for_status=yellow&timeout=60s", None);
    }
    assert!(run.try_wait().unwrap().is_none(), "it ended before the second restart");
    let ended = run.wait().unwrap();
    assert!(ended.success(), "{}", std::fs::read_to_string(shipper.directory.path().join("log")).unwrap());
    assert_eq!(server.count("audit"), EVENTS as u64);
    assert_eq!(shipper.letters(), "");
}
