//! Shipping to a real OpenSearch: its refusals, its limits, its restarts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use auditferry::generate::{Bucket, Layout, Options};
use auditferry::time::Date;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ferry::{program, record, succeeded};
use crate::moto::Moto;
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
            layout = "any"
            glob = "**/*.json"

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

    fn bucket(&self) -> PathBuf {
        self.directory.path().join("bucket")
    }

    /// Puts an object into the bucket.
    fn deliver(&self, name: &str, content: &str) {
        std::fs::create_dir_all(self.bucket()).unwrap();
        std::fs::write(self.bucket().join(format!("{name}.json")), content).unwrap();
    }

    /// Puts into the bucket whatever Databricks writes on any cloud, and every oddity that is known.
    fn deliver_all_kinds(&self) {
        for layout in [Layout::DatabricksDelivery, Layout::AzureDiagnostic, Layout::LogAnalyticsExport] {
            let options = Options { layout, ..Options::new(2, 2, 2000, Date::parse("2026-01-06").unwrap()) };
            Bucket::new(options).unwrap().write_round(&self.bucket(), 0).unwrap();
        }
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap() {
            let path = entry.unwrap().path();
            if let Some(name) = path.to_str().unwrap().strip_suffix(".in.ndjson") {
                let name = Path::new(name).file_name().unwrap().to_str().unwrap();
                self.deliver(name, &std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["300", &program()])
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
    // And none is too full for this; the server's own watermarks depend on the machine's.
    watermarks(json!("1kb"));
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

#[test]
fn every_record_there_is_fits_the_templates_of_both_formats() {
    let server = OpenSearch::start(&[]);
    let mut counts = Vec::new();
    for (index, format, flat) in [
        ("plain-{event_date}", "canonical", "request_params"),
        ("stream", "canonical", "request_params"),
        ("ecs-plain-{event_date}", "ecs", "databricks.audit.request_params"),
        ("ecs-stream", "ecs", "databricks.audit.request_params"),
    ] {
        let shipper = Shipper::new(&server.url(), &format!("index = '{index}'\nformat = '{format}'"));
        shipper.deliver_all_kinds();
        shipper.deliver(
            "undated",
            r#"{"version":"2.0","timestamp":null,"serviceName":"jobs","actionName":"undated","requestParams":{"job":"7"}}"#,
        );
        succeeded(&shipper.command(&["setup", "elastic", "--apply"]).output().unwrap());
        let ended = shipper.run();
        assert!(matches!(ended.status.code(), Some(0 | 1)), "{}", said(&ended));
        // Some of the oddities are no events; no event is refused.
        let letters = shipper.letters();
        let refused: Vec<_> =
            letters.lines().filter(|line| line.contains("\"reason\":\"rejected\"")).collect();
        assert!(refused.is_empty(), "{index}: {refused:#?}");
        let pattern = index.replace("{event_date}", "*");
        counts.push(server.count(&pattern));
        let is_stream = server.try_call(Method::GET, &format!("/_data_stream/{pattern}"), None).0 == 200
            && !index.contains('{');
        assert_eq!(is_stream, index.ends_with("stream"), "{index}");
        let found = |query: &str| {
            let path = format!("/{pattern}/_count?q={query}");
            server.get(&path)["count"].as_u64().unwrap()
        };
        // What has no time is found where nothing else is, by a parameter of any name.
        assert_eq!(found(&format!("%2B@timestamp:1970-01-01%20%2B{flat}.job:7")), 1, "{index}");
        let mappings = server.get(&format!("/{pattern}/_mapping")).to_string();
        assert!(mappings.contains(r#""request_params":{"type":"flat_object"}"#), "{mappings}");
    }
    // Both layouts of Azure hold the same events, and some oddities share an id but not a date.
    assert!(counts[1] > 4000 && counts[0] >= counts[1], "{counts:?}");
    assert_eq!((counts[0], counts[1]), (counts[2], counts[3]), "of both formats");
}

#[test]
fn a_cluster_that_refuses_the_templates_says_why() {
    let server = OpenSearch::start(&[]);
    let shipper = Shipper::new(&server.url(), "index = 'audit-{event_date}'");
    let other = json!({"index_patterns": ["audit-*"], "priority": 200});
    server.put("/_index_template/somebody", &other);
    let ended = shipper.command(&["setup", "elastic", "--apply"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let said = said(&ended);
    assert!(said.contains("cannot put /_index_template/audit") && said.contains("somebody"), "{said}");
}

#[test]
fn the_keys_of_an_assumed_role_sign_what_goes_to_opensearch() {
    let (moto, server) = (Moto::start(), OpenSearch::start(&[]));
    let recorder = Recorder::start(server.address);
    let aws = "aws = { region = 'eu-west-1', access_key_id = 'AKIDSTATIC', secret_access_key = 'secret', \
               role_arn = 'arn:aws:iam::123456789012:role/audit-writer' }";
    let shipper = Shipper::new(&format!("http://{}", recorder.address), &format!("index = 'audit'\n{aws}"));
    shipper.deliver("a", &records(0..10));
    let sts = format!("http://{}", moto.address);
    succeeded(&shipper.command(&["run", "--once"]).env("AWS_ENDPOINT_URL_STS", sts).output().unwrap());
    assert_eq!(server.count("audit"), 10);
    let asked = recorder.asked();
    assert!(asked.contains("credential=asia") && asked.contains("/eu-west-1/es/aws4_request"), "{asked}");
    assert!(asked.contains("x-amz-security-token: "), "{asked}");
}
