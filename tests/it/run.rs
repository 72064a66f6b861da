//! `auditferry run` from outside: what it leaves, what it says, how it stops.

use std::collections::{BTreeMap, BTreeSet};

use auditferry::app::App;
use auditferry::config::Config;
use auditferry::pipeline::PipelineError;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::collector::{Collector, Protocol, Step};
use crate::support::place::{
    ONCE, RUN, configured, deliver, growing, json_lines, lines, record, request_ids, write_config,
};
use crate::support::process::{Process, SECRET, get, repository, run};

/// Lines of the sample bucket.
const SAMPLES: usize = 300;

/// The quickstart configuration, in a directory of its own.
fn quickstart() -> TempDir {
    let text = std::fs::read_to_string(repository("config/quickstart.toml")).unwrap();
    assert!(text.contains("\"samples/delivery\""), "{text}");
    configured(&text.replace("samples/delivery", "{samples}"))
}

#[test]
fn the_quickstart_ships_the_samples_once() {
    let directory = quickstart();
    let first = run(&ONCE, directory.path()).with(0);
    let path = directory.path().join("quickstart/events.ndjson");
    let events = json_lines(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(events.len(), SAMPLES);
    let ids: BTreeSet<_> = events.iter().map(|event| event["event_id"].to_string()).collect();
    assert_eq!(ids.len(), SAMPLES);
    assert!(first.stderr.contains("samples/events"), "{}", first.stderr);
    let again = run(&ONCE, directory.path()).with(0);
    assert_eq!(lines(&path).len(), SAMPLES, "{}", again.stderr);
    assert_eq!(first.stdout + &again.stdout, "", "events go to the file, the rest to stderr");
}

#[test]
fn what_azure_records_leave_out_is_taken_from_the_configuration() {
    let input = "type = \"bucket\"\nurl = \"bucket\"\nlayout = \"any\"\naccount_id = \"acme\"\n\
                 [inputs.audit.workspace_ids]\n\
                 \"/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg-data/providers/\
                 microsoft.databricks/Workspaces/dbw-prod\" = \"7405611902334455\"";
    let directory = configured(&format!(
        "state_dir = \"state\"\n[inputs.audit]\n{input}\n[outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n"
    ));
    std::fs::create_dir(directory.path().join("bucket")).unwrap();
    let sample = repository("tests/golden/azure_diagnostic.in.ndjson");
    std::fs::copy(sample, directory.path().join("bucket/PT1H.json")).unwrap();
    run(&ONCE, directory.path()).with(0);
    let events = json_lines(&std::fs::read_to_string(directory.path().join("out.ndjson")).unwrap());
    assert!(events.len() >= 4);
    for event in events {
        assert_eq!(
            (&event["account_id"], &event["workspace_id"]),
            (&"acme".into(), &"7405611902334455".into())
        );
    }
}

#[test]
fn a_second_process_on_one_state_directory_is_turned_away() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let mut first = Process::start(&RUN, directory.path());
    first.until_logged("started");
    let second = run(&ONCE, directory.path()).with(2);
    let complaint =
        "state_dir state is in use by another auditferry; stop that one, or give this one its own state_dir";
    assert!(second.stderr.contains(complaint), "{}", second.stderr);
    first.signal("TERM");
    first.end().with(0);
}

#[test]
fn a_state_directory_that_cannot_be_made_is_named_with_the_way_out() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    std::fs::write(directory.path().join("state"), "a file").unwrap();
    let ended = run(&ONCE, directory.path()).with(2);
    assert!(ended.stderr.contains("cannot use state_dir state: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("make it writable for this user or name another"), "{}", ended.stderr);
}

#[test]
fn a_file_that_cannot_be_listed_does_not_hold_up_the_others() {
    use std::os::unix::ffi::OsStrExt;
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let folder = directory.path().join("bucket/workspaceId=8/date=2026-01-05");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(std::ffi::OsStr::from_bytes(b"auditlogs_\xff.json")), record(2)).unwrap();
    std::fs::write(folder.join("auditlogs_a.json"), record(3)).unwrap();
    let ended = run(&ONCE, directory.path()).with(2);
    let complaint = "auditferry: in/out: cannot list workspaceId=8/date=2026-01-05: ";
    assert!(ended.stderr.contains(complaint), "{}", ended.stderr);
    assert_eq!(lines(&directory.path().join("out.ndjson")).len(), 2);
}

#[test]
fn a_missing_bucket_directory_is_named() {
    let directory = configured(
        "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"no/such\"\n\
         [outputs.out]\ntype = \"file\"\npath = \"-\"\n",
    );
    let ended = run(&ONCE, directory.path()).with(2);
    assert!(ended.stderr.contains("no/such"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_run_gives_up_at_a_collector_that_wants_another_token() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.want_authorization("Splunk another");
    let directory = growing(&format!(
        "type = \"splunk_hec\"\nurl = \"{}\"\ntoken = {{ env = \"TOKEN\" }}",
        collector.url()
    ));
    let ended = run(&ONCE, directory.path()).with(2);
    assert!(ended.stderr.contains("auditferry: in/out: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("set `token` to a token that Splunk knows"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("waiting"), "it does not wait: {}", ended.stderr);
    assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
    // Put right, nothing is missing.
    collector.want_authorization(&format!("Splunk {SECRET}"));
    run(&ONCE, directory.path()).with(0);
    assert_eq!(request_ids(&collector.events()), ["request-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_single_run_that_cannot_list_its_bucket_does_not_end_well() {
    let store = Collector::start(Protocol::Any).await;
    store.set_down(Some(500));
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display();
    write_config(
        directory.path(),
        &format!(
            "state_dir = \"{here}/state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"s3://audit/logs\"\n\
             [inputs.in.s3]\nendpoint = \"{}\"\nallow_http = true\nregion = \"us-east-1\"\n\
             access_key_id = \"AKID\"\nsecret_access_key = \"secret\"\n\
             [outputs.out]\ntype = \"file\"\npath = \"{here}/out.ndjson\"\n",
            store.url()
        ),
    );
    let config = Config::load(&[directory.path().join("a.toml")], &BTreeMap::new()).unwrap();
    let mut running = App::build(&config, true).unwrap().start(&CancellationToken::new());
    let error = running.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("cannot list logs"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_single_run_gives_up_at_a_collector_that_is_not_there_after_minutes_not_never() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = growing(&format!("type = \"http\"\nurl = \"http://{nobody}\"\nproxy = \"none\""));
    let here = directory.path().display();
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    let text = text
        .replace("\"state\"", &format!("\"{here}/state\""))
        .replace("\"bucket\"\n[out", &format!("\"{here}/bucket\"\n[out"));
    write_config(directory.path(), &text);
    let config = Config::load(&[directory.path().join("a.toml")], &BTreeMap::new()).unwrap();
    let start = tokio::time::Instant::now();
    let mut running = App::build(&config, true).unwrap().start(&CancellationToken::new());
    let error = running.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, PipelineError::Collector { .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains(&format!("cannot reach {nobody}: ")) && told.contains("check `url`"), "{told}");
    let minutes = start.elapsed().as_secs() / 60;
    assert!((2..=5).contains(&minutes), "{minutes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_stops_in_order_and_what_was_sent_stays_sent() {
    for signal in ["INT", "TERM"] {
        let collector = Collector::start(Protocol::Any).await;
        collector.push(Step::answer(200, "").keeping().delayed(std::time::Duration::from_millis(300)));
        let directory = growing(&format!("type = \"http\"\nurl = \"{}\"", collector.url()));
        let mut process = Process::start(&RUN, directory.path());
        process.until("a request under way", |_| collector.count_requests() == 1);
        process.signal(signal);
        process.end().with(0);
        deliver(directory.path(), "second", &[2]);
        run(&ONCE, directory.path()).with(0);
        assert_eq!(request_ids(&collector.events()), ["request-1", "request-2"], "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_period_bounds_how_long_a_dead_collector_delays_a_stop() {
    let collector = Collector::start(Protocol::Any).await;
    collector.set_down(Some(503));
    let directory = growing(&format!("type = \"http\"\nurl = \"{}\"", collector.url()));
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    write_config(directory.path(), &format!("shutdown_grace = \"100ms\"\n{text}"));
    let mut process = Process::start(&RUN, directory.path());
    process.until_logged("nothing is lost");
    process.signal("TERM");
    let ended = process.end().with(0);
    assert!(ended.stderr.contains("the rest is read again at the next start"), "{}", ended.stderr);
    collector.set_down(None);
    run(&ONCE, directory.path()).with(0);
    assert_eq!(request_ids(&collector.events()), ["request-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_run_that_is_stopped_before_all_is_delivered_does_not_end_well() {
    for signal in ["INT", "TERM"] {
        let collector = Collector::start(Protocol::Any).await;
        collector.set_down(Some(500));
        let directory = growing(&format!("type = \"http\"\nurl = \"{}\"", collector.url()));
        let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
        write_config(directory.path(), &format!("shutdown_grace = \"100ms\"\n{text}"));
        let mut process = Process::start(&ONCE, directory.path());
        process.until_logged("nothing is lost");
        process.signal(signal);
        let ended = process.end().with(2);
        let last = ended.stderr.lines().last().unwrap();
        let told = "auditferry: in/out: not everything was delivered within the grace period; the rest is read again";
        assert!(last.starts_with(told), "{}", ended.stderr);
        collector.set_down(None);
        run(&ONCE, directory.path()).with(0);
        assert_eq!(request_ids(&collector.events()), ["request-1"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_waits_for_a_human_does_not_delay_a_stop() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.want_authorization("Splunk another");
    let output =
        format!("type = \"splunk_hec\"\nurl = \"{}\"\ntoken = {{ env = \"TOKEN\" }}", collector.url());
    let directory = growing(&output);
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    write_config(directory.path(), &format!("shutdown_grace = \"1h\"\n{text}"));
    let mut process = Process::start(&RUN, directory.path());
    process.until_logged("waiting, nothing is lost");
    process.signal("TERM");
    let ended = process.end().with(0);
    assert!(
        ended.stderr.contains("the output waits for a human; the rest is read again"),
        "{}",
        ended.stderr
    );
    collector.want_authorization(&format!("Splunk {SECRET}"));
    run(&ONCE, directory.path()).with(0);
    assert_eq!(request_ids(&collector.events()), ["request-1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_at_once() {
    let collector = Collector::start(Protocol::Any).await;
    collector.set_down(Some(503));
    let directory = growing(&format!("type = \"http\"\nurl = \"{}\"", collector.url()));
    let mut process = Process::start(&RUN, directory.path());
    process.until_logged("nothing is lost");
    process.signal("INT");
    process.until_logged("stopping: delivering what is under way, for 30s at most");
    let start = tokio::time::Instant::now();
    process.signal("INT");
    process.end().with(130);
    assert!(start.elapsed().as_secs() < 20);
}

#[test]
fn a_hang_up_signal_reopens_the_file_that_was_renamed() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let (path, old) = (directory.path().join("out.ndjson"), directory.path().join("out.ndjson.1"));
    let mut process = Process::start(&RUN, directory.path());
    process.until("the first event written", |_| lines(&path).len() == 1);
    std::fs::rename(&path, &old).unwrap();
    process.signal("HUP");
    process.until_logged("reopening output files");
    deliver(directory.path(), "second", &[2]);
    process.until("the second event written", |_| lines(&path).len() == 1);
    process.signal("TERM");
    process.end().with(0);
    assert_eq!(lines(&old).len(), 1);
    assert!(lines(&path)[0].contains("request-2"));
}

#[test]
fn stdout_carries_events_and_nothing_else() {
    let directory = growing("type = \"file\"\npath = \"-\"");
    let ended = run(&ONCE, directory.path()).with(0);
    assert_eq!(request_ids(&json_lines(&ended.stdout)), ["request-1"]);
    assert!(
        ended.stderr.contains("\"message\":\"started\""),
        "the log is JSON off a terminal: {}",
        ended.stderr
    );
    let directory = growing("type = \"file\"\npath = \"-\"");
    let arguments = ["--log-format", "text", "--log-level", "warn", "run", "--once", "--config", "a.toml"];
    let ended = run(&arguments, directory.path()).with(0);
    assert_eq!(json_lines(&ended.stdout).len(), 1);
    assert!(!ended.stderr.contains("started"), "{}", ended.stderr);
}

#[test]
fn the_status_server_answers_where_it_says_it_listens() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    write_config(directory.path(), &text.replace("\"none\"", "\"127.0.0.1:0\""));
    let mut process = Process::start(&RUN, directory.path());
    let address = process.address();
    process.until("the first event written", |_| !lines(&directory.path().join("out.ndjson")).is_empty());
    process.until("delivered in /metrics", |_| {
        get(&address, "/metrics").contains("auditferry_events_delivered_total{input=\"in\",output=\"out\"} 1")
    });
    assert!(get(&address, "/readyz").ends_with("\r\n\r\nready\n"));
    assert!(get(&address, "/healthz").ends_with("ok\n"));
    let status = get(&address, "/status");
    let status: Value = serde_json::from_str(status.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(status["pipelines"][0]["events_delivered"], 1);
    assert_eq!(status["pipelines"][0]["phase"], "running");
    let second = growing("type = \"file\"\npath = \"out.ndjson\"");
    let text = std::fs::read_to_string(second.path().join("a.toml")).unwrap();
    write_config(second.path(), &text.replace("\"none\"", &format!("\"{address}\"")));
    let refused = run(&RUN, second.path()).with(2);
    assert!(
        refused.stderr.contains(&format!("cannot listen on server.listen = \"{address}\"")),
        "{}",
        refused.stderr
    );
    process.signal("TERM");
    process.end().with(0);
}

#[test]
fn a_generated_bucket_can_be_shipped() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let arguments = ["generate", "--out", "bucket", "--events", "40", "--overwrite-rounds", "2"];
    let printed = run(&arguments, directory.path()).with(0).stdout;
    assert!(printed.starts_with("wrote 40 lines ("), "{printed}");
    run(&ONCE, directory.path()).with(0);
    assert_eq!(lines(&directory.path().join("out.ndjson")).len(), 41);
}

#[test]
fn a_secret_in_a_command_does_not_leave_but_to_an_output_that_is_to_have_it() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let config = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    let archive = "\n[outputs.archive]\ntype = \"file\"\npath = \"archive.ndjson\"\nredact = false\n\
                   [outputs.raw]\ntype = \"file\"\npath = \"raw.ndjson\"\nformat = \"raw\"\n";
    write_config(directory.path(), &(config + archive));
    let folder = directory.path().join("bucket/workspaceId=7/date=2026-01-05");
    std::fs::create_dir_all(&folder).unwrap();
    let line = record(2).replace("\"requestParams\":{}", r#""requestParams":{"q":"SET password=hunter2;"}"#);
    std::fs::write(folder.join("auditlogs_second.json"), line + "\n").unwrap();
    run(&ONCE, directory.path()).with(0);
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let [out, archive, raw] = ["out.ndjson", "archive.ndjson", "raw.ndjson"].map(read);
    assert!(archive.contains("password=hunter2"));
    for text in [&out, &raw] {
        assert!(text.contains("password=[redacted:") && !text.contains("hunter2"), "{text}");
    }
    let ids = |text: &str| {
        let mut ids: Vec<_> =
            json_lines(text).iter().map(|event| event["event_id"].clone().to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&out), ids(&archive), "an id is that of the record as it was");
}

#[test]
fn generated_blobs_of_azure_can_be_shipped_in_their_layouts() {
    for layout in ["azure_diagnostic", "log_analytics_export"] {
        let input = format!(
            "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"blobs\"\nlayout = \"{layout}\"\nwatch = false\n"
        );
        let directory =
            configured(&format!("{input}[outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n"));
        let generate =
            ["generate", "--out", "blobs", "--layout", layout, "--events", "400", "--workspaces", "3"];
        run(&generate, directory.path()).with(0);
        run(&ONCE, directory.path()).with(0);
        let delivered = lines(&directory.path().join("out.ndjson"));
        assert_eq!(delivered.len(), 400, "{layout}");
        assert!(delivered.iter().all(|line| line.contains("\"azure.resource_id\"")), "{layout}");
        run(&ONCE, directory.path()).with(0);
        assert_eq!(lines(&directory.path().join("out.ndjson")).len(), 400, "{layout}: nothing is new");
    }
}

#[tokio::test]
async fn events_that_two_inputs_send_to_one_output_are_counted_there_and_delivered_all_the_same() {
    let directory = growing("type = \"file\"\npath = \"unused.ndjson\"");
    let here = directory.path().display();
    deliver(directory.path(), "second", &[2, 3]);
    let input = |name: &str| format!("[inputs.{name}]\ntype = \"bucket\"\nurl = \"{here}/bucket\"\n");
    let output = |name: &str, keys: &str| {
        format!("[outputs.{name}]\ntype = \"file\"\npath = \"{here}/{name}.ndjson\"\n{keys}\n")
    };
    let text = format!("state_dir = \"{here}/state\"\nserver.listen = \"none\"\n")
        + &input("bucket")
        + &input("copy")
        + &output("siem", "count_overlap = true")
        + &output("archive", "");
    write_config(directory.path(), &text);
    let config = Config::load(&[directory.path().join("a.toml")], &BTreeMap::new()).unwrap();
    let mut app = App::build(&config, true).unwrap();
    let mut running = app.start(&CancellationToken::new());
    while let Some(ended) = running.join_next().await {
        ended.unwrap().unwrap();
    }
    let overlaps = |output: &str| -> u64 {
        app.routes
            .iter()
            .filter(|route| route.output_name == output)
            .map(|route| route.metrics.overlaps.get())
            .sum()
    };
    assert_eq!((overlaps("siem"), overlaps("archive")), (3, 0));
    for name in ["siem", "archive"] {
        assert_eq!(lines(&directory.path().join(format!("{name}.ndjson"))).len(), 6);
    }
}
