//! The commands as a user types them: what they print, what they leave, and how they end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use auditferry::app::App;
use auditferry::config::Config;
use auditferry::pipeline::PipelineError;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::collector::{Collector, Protocol, Step};
use crate::support::process::{Process, SECRET, repository, run};

/// Lines of the sample bucket.
const SAMPLES: usize = 300;

/// A directory with a configuration file; `{samples}` in it is the sample bucket.
fn configured(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    write_config(directory.path(), text);
    directory
}

fn write_config(directory: &Path, text: &str) {
    let samples = repository("samples/delivery");
    let text = text.replace("{samples}", &samples.display().to_string());
    std::fs::write(directory.join("a.toml"), text).unwrap();
}

/// The quickstart configuration, in a directory of its own.
fn quickstart() -> TempDir {
    let text = std::fs::read_to_string(repository("config/quickstart.toml")).unwrap();
    assert!(text.contains("\"samples/delivery\""), "{text}");
    configured(&text.replace("samples/delivery", "{samples}"))
}

const ONCE: [&str; 4] = ["run", "--once", "--config", "a.toml"];
const RUN: [&str; 3] = ["run", "--config", "a.toml"];

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// One sentence on stderr, after the program's name.
fn only_complaint(stderr: &str) -> &str {
    let line = stderr.strip_prefix("auditferry: ").unwrap_or_else(|| panic!("{stderr}"));
    let line = line.trim_end();
    assert!(!line.contains('\n'), "{stderr}");
    line
}

/// A bucket that grows, to a file, without a server.
fn growing(output: &str) -> TempDir {
    let directory = configured(&format!(
        "state_dir = \"state\"\nserver.listen = \"none\"\n\
         [inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\n\
         [outputs.out]\n{output}\n"
    ));
    deliver(directory.path(), "first", &[1]);
    directory
}

/// Puts an object with these records into the growing bucket.
fn deliver(directory: &Path, object: &str, numbers: &[u32]) {
    let text: String = numbers.iter().map(|number| record(*number) + "\n").collect();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let folder = directory.join(format!("bucket/workspaceId=7/date={date}"));
    std::fs::create_dir_all(&folder).unwrap();
    let hidden = folder.join(format!(".{object}.partial"));
    std::fs::write(&hidden, text).unwrap();
    std::fs::rename(hidden, folder.join(format!("auditlogs_{object}.json"))).unwrap();
}

fn record(number: u32) -> String {
    format!(
        r#"{{"version":"2.0","timestamp":{},"serviceName":"jobs","actionName":"create","requestId":"request-{number}","requestParams":{{}}}}"#,
        1_767_609_296_123_u64 + u64::from(number)
    )
}

fn request_ids<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    events.into_iter().map(|event| event["request_id"].as_str().unwrap().to_owned()).collect()
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
fn check_prints_the_pipelines_and_no_secret() {
    let directory = configured(
        "[inputs.audit]\ntype = \"bucket\"\nurl = \"{samples}\"\n\
         [outputs.splunk]\ntype = \"splunk_hec\"\nurl = \"https://splunk.example:8088\"\ntoken = { env = \"TOKEN\" }\n\
         [outputs.sumo]\ntype = \"sumo\"\nurl = \"https://collector.example/receiver/v1/http/hunter2-is-not-printed\"\n",
    );
    let checked = run(&["check", "--config", "a.toml"], directory.path()).with(0);
    assert!(checked.stdout.contains("  audit -> splunk\n  audit -> sumo\n"), "{}", checked.stdout);
    assert!(checked.stdout.contains("{samples}") || checked.stdout.contains("samples/delivery"));
    assert!(!checked.stdout.contains(SECRET) && !checked.stderr.contains(SECRET), "{checked:?}");
    assert!(!directory.path().join("state").exists(), "check leaves nothing behind");
}

#[test]
fn the_configuration_of_the_readme_is_one() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let text = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    // Only what a user has and this machine has not.
    let text = text
        .replace("layout = ", "s3.region = \"eu-central-1\"\nlayout = ")
        .replace("{ env = \"ES_API_KEY\" }", "{ env = \"TOKEN\" }")
        .replace("/etc/auditferry/", "");
    let directory = configured(&text);
    std::fs::write(directory.path().join("hec-token"), "token\n").unwrap();
    std::fs::write(directory.path().join("sumo-url"), "https://collector.example/receiver/v1/http/x\n")
        .unwrap();
    let checked = run(&["check", "--config", "a.toml"], directory.path()).with(0).stdout;
    for pipeline in ["audit -> splunk", "audit -> sumo", "audit -> elastic"] {
        assert!(checked.contains(pipeline), "{checked}");
    }
    assert!(!checked.contains("warning"), "{checked}");
}

#[test]
fn the_readme_names_every_metric_there_is() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let metrics = auditferry::metrics::Metrics::new().unwrap();
    metrics.pipeline("in", "out").dead_letter("rejected");
    let text = metrics.render().unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE auditferry_")?.split(' ').next());
    let missing: Vec<_> = names.filter(|name| !readme.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn each_mistake_is_one_line_with_file_key_and_remedy() {
    let input = "[inputs.in]\ntype = \"bucket\"\nurl = \"{samples}\"\n";
    let splunk = "[outputs.o]\ntype = \"splunk_hec\"\nurl = \"https://splunk.example:8088\"\n";
    let token = "token = { env = \"TOKEN\" }\n";
    for (text, expected) in [
        (
            format!("{input}{splunk}{token}indx = \"a\"\n"),
            "a.toml: outputs.o.indx: unknown key; did you mean `index`?",
        ),
        (format!("{input}{splunk}{token}ack = \"yes\"\n"), "a.toml: outputs.o.ack: must be true or false"),
        (format!("{input}{splunk}"), "a.toml: outputs.o.token: is missing"),
        (format!("{input}{splunk}token = {{ env = \"NO_SUCH\" }}\n"), "outputs.o.token"),
        (format!("{input}{splunk}token = {{ file = \"no/such\" }}\n"), "outputs.o.token"),
        (format!("{input}{splunk}{token}poll = \n"), "a.toml: line 8"),
        (splunk.to_owned() + token, "a.toml: inputs: "),
    ] {
        let directory = configured(&text);
        for command in [&["check", "--config", "a.toml"][..], &ONCE] {
            let ended = run(command, directory.path()).with(2);
            let line = only_complaint(&ended.stderr);
            assert!(line.contains(expected), "{line}\n{text}");
            assert!(ended.stdout.is_empty(), "{}", ended.stdout);
        }
    }
}

#[test]
fn a_missing_configuration_file_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(&ONCE, directory.path()).with(2);
    let line = only_complaint(&ended.stderr);
    assert!(line.starts_with("a.toml: ") && line.contains("--config"), "{line}");
    let ended = run(&["run", "--once"], directory.path()).with(2);
    assert!(
        only_complaint(&ended.stderr).starts_with("/etc/auditferry/auditferry.toml: "),
        "{}",
        ended.stderr
    );
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
    assert!(ended.stderr.contains("auditferry: in/out: cannot list the bucket: "), "{}", ended.stderr);
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
fn a_single_run_that_left_dead_letters_says_so_with_its_exit_code() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let object = directory.path().join(format!("bucket/workspaceId=7/date={date}/auditlogs_bad.json"));
    std::fs::write(object, format!("{}\n{{\"cut\n{}\n", record(2), record(3))).unwrap();
    run(&ONCE, directory.path()).with(1);
    assert_eq!(lines(&directory.path().join("out.ndjson")).len(), 3, "the rest of the object goes on");
    run(&ONCE, directory.path()).with(0);
    let listed = run(&["dead-letters", "list", "--config", "a.toml"], directory.path()).with(0).stdout;
    assert!(listed.contains("in/out") && listed.contains("not_json"), "{listed}");
    let shown = run(&["dead-letters", "show", "--config", "a.toml"], directory.path()).with(0).stdout;
    let letter = &json_lines(&shown)[0];
    assert_eq!((&letter["record"], &letter["line"]), (&Value::from("{\"cut"), &Value::from(2)));
    assert!(letter["object"].as_str().unwrap().ends_with("auditlogs_bad.json"), "{letter}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_event_is_kept_shown_and_replayed() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.set_poison("request-2");
    let directory = growing(&format!(
        "type = \"splunk_hec\"\nurl = \"{}\"\ntoken = {{ env = \"TOKEN\" }}",
        collector.url()
    ));
    let letters = |command: &str| run(&["dead-letters", command, "--config", "a.toml"], directory.path());
    assert_eq!(letters("list").with(0).stdout, "no dead letters\n");
    deliver(directory.path(), "first", &[1, 2, 3]);
    run(&ONCE, directory.path()).with(1);
    assert_eq!(request_ids(&collector.events()), ["request-1", "request-3"]);
    let listed = letters("list").with(0).stdout;
    assert!(listed.contains("in/out") && listed.contains("rejected"), "{listed}");
    let shown = json_lines(&letters("show").with(0).stdout);
    assert_eq!((shown.len(), &shown[0]["record"]), (1, &Value::from(record(2))));

    let replayed = letters("replay").with(1).stdout;
    assert_eq!(replayed, "in/out: 0 delivered, 1 dead letters again\n");
    assert_eq!(json_lines(&letters("show").with(0).stdout).len(), 1, "refused again, it is kept again");

    collector.set_poison("nothing");
    assert_eq!(letters("replay").with(0).stdout, "in/out: 1 delivered, 0 dead letters again\n");
    assert_eq!(letters("list").with(0).stdout, "no dead letters\n");
    let events = collector.events();
    assert_eq!(request_ids(&events), ["request-1", "request-3", "request-2"]);
    // The same as if it had been delivered at once.
    assert_eq!(events[2]["workspace_id"], "7");
    assert_eq!(events[2]["_source"]["object"], events[0]["_source"]["object"]);
    assert_eq!(letters("replay").with(0).stdout, "no dead letters to replay\n");
}

#[test]
fn a_letter_that_holds_only_the_beginning_of_a_record_is_kept_and_counted() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    write_config(
        directory.path(),
        &text.replace("\"bucket\"\n[out", "\"bucket\"\nmax_line_bytes = \"1KiB\"\n[out"),
    );
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let object = directory.path().join(format!("bucket/workspaceId=7/date={date}/auditlogs_long.json"));
    std::fs::write(object, format!("{{\"a\":\"{}\"}}\nno json\n", "x".repeat(5000))).unwrap();
    run(&ONCE, directory.path()).with(1);
    for _ in 0..2 {
        let replayed =
            run(&["dead-letters", "replay", "--config", "a.toml"], directory.path()).with(1).stdout;
        assert_eq!(replayed, "in/out: 0 delivered, 2 dead letters again\n");
    }
    let shown = run(&["dead-letters", "show", "--config", "a.toml"], directory.path()).with(0).stdout;
    let reasons: BTreeSet<_> = json_lines(&shown).iter().map(|letter| letter["reason"].to_string()).collect();
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["\"not_json\"", "\"too_long\""]);
}

#[test]
fn a_reader_of_dead_letters_needs_no_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let listed = run(&["dead-letters", "list", "--state-dir", "state"], directory.path()).with(0);
    assert_eq!(listed.stdout, "no dead letters\n");
}

#[test]
fn simulate_tells_which_lines_are_no_records_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("{}\nnot json\n\n{}\n", record(1), record(2));
    std::fs::write(directory.path().join("x.json"), text).unwrap();
    let ended = run(&["simulate", "x.json"], directory.path()).with(1);
    assert_eq!(request_ids(&json_lines(&ended.stdout)), ["request-1", "request-2"]);
    assert!(ended.stderr.starts_with("x.json:2: the record is not JSON"), "{}", ended.stderr);
    let ended = run(&["simulate", "no/such.json"], directory.path()).with(2);
    assert!(only_complaint(&ended.stderr).starts_with("cannot read no/such.json: "), "{}", ended.stderr);
}

#[test]
fn simulate_takes_the_workspace_from_a_delivered_path() {
    let directory = growing("type = \"file\"\npath = \"-\"");
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let path = format!("bucket/workspaceId=7/date={date}/auditlogs_first.json");
    let workspace = |arguments: &[&str]| {
        let printed =
            run(&[&["simulate", path.as_str()], arguments].concat(), directory.path()).with(0).stdout;
        json_lines(&printed)[0]["workspace_id"].clone()
    };
    assert_eq!(workspace(&[]), Value::Null);
    assert_eq!(workspace(&["--layout", "databricks_delivery"]), "7");
}

#[test]
fn simulate_reads_a_document_over_several_lines_and_compressed_files() {
    let directory = tempfile::tempdir().unwrap();
    let envelope: Value =
        serde_json::from_str(&format!("{{\"records\":[{},{}]}}", record(1), record(2))).unwrap();
    std::fs::write(directory.path().join("x.json"), format!("{envelope:#}")).unwrap();
    let packed = zstd::encode_all(record(3).as_bytes(), 1).unwrap();
    std::fs::write(directory.path().join("y.json"), packed).unwrap();
    let printed = run(&["simulate", "x.json", "y.json"], directory.path()).with(0).stdout;
    assert_eq!(request_ids(&json_lines(&printed)), ["request-1", "request-2", "request-3"]);
}

#[test]
fn what_is_made_for_other_programs_is_what_they_expect() {
    let directory = tempfile::tempdir().unwrap();
    let printed = |arguments: &[&str]| run(arguments, directory.path()).with(0).stdout;
    let schema: Value = serde_json::from_str(&printed(&["schema"])).unwrap();
    assert!(schema["$schema"].is_string());
    toml::from_str::<toml::Table>(&printed(&["schema", "--reference"])).unwrap();
    let catalog = printed(&["catalog"]);
    for name in ["bucket", "splunk_hec", "sumo", "elastic", "http", "file", "canonical", "ecs", "ocsf", "raw"]
    {
        assert!(catalog.contains(&format!("\n  {name} ")), "{name}: {catalog}");
    }
    assert!(printed(&["completions", "bash"]).contains("complete -F _auditferry"));
    assert!(printed(&["man"]).starts_with(".ie"));
    assert!(printed(&["--version"]).starts_with("auditferry 0."));
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
fn the_status_server_answers_where_it_says_it_listens() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    write_config(directory.path(), &text.replace("\"none\"", "\"127.0.0.1:0\""));
    let mut process = Process::start(&RUN, directory.path());
    process.until_logged("listening on http://");
    let log = process.stderr();
    let address = log.split("listening on http://").nth(1).unwrap().split('"').next().unwrap().to_owned();
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

/// The answer to a GET, head and body.
fn get(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn help_without_a_command_ends_with_2_and_says_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(&[], directory.path()).with(2);
    assert!(ended.stderr.contains("dead-letters"), "{}", ended.stderr);
}
