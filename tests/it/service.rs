//! `auditferry run` as a service: what the service manager hears, and what a reload changes and leaves alone.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::collector::{Collector, Protocol, Step};
use crate::support::place::{RUN, configured, deliver, growing, lines, request_ids, write_config};
use crate::support::process::{Process, get, run};

/// Starts the service with these variables.
fn start(arguments: &[&str], directory: &Path, variables: &[(&str, &str)]) -> Process {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, PathBuf::from(value))).collect();
    Process::start_with(arguments, directory, &variables)
}

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    heard: String,
}

impl Manager {
    fn listen(directory: &Path) -> Self {
        let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, heard: String::new() }
    }

    /// Whether this was told, since the last time this was asked and answered with yes.
    fn hears(&mut self, text: &str) -> bool {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        let found = self.heard.find(text).map(|start| start + text.len());
        self.heard.drain(..found.unwrap_or(0));
        found.is_some()
    }
}

/// The growing bucket's configuration, with these keys before it and these outputs.
fn flowing(first: &str, outputs: &[String]) -> String {
    format!(
        "state_dir = \"state\"\n{first}[inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\npoll_interval = \"1s\"\n{}",
        outputs.concat()
    )
}

fn to(name: &str, collector: &Collector, keys: &str) -> String {
    format!("[outputs.{name}]\ntype = \"http\"\nurl = \"{}\"\nproxy = \"none\"\n{keys}\n", collector.url())
}

const FREE_PORT: &str = "server.listen = \"127.0.0.1:0\"\n";

fn status(address: &str) -> Value {
    serde_json::from_str(get(address, "/status").split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

fn reloads(address: &str, result: &str) -> bool {
    get(address, "/metrics").contains(&format!("auditferry_config_reloads_total{{result=\"{result}\"}} 1\n"))
}

/// Fails unless the collector has the requests up to this number, and each once.
fn has_each_once(collector: &Collector, last: u32) {
    let ids = request_ids(&collector.events());
    let distinct: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(distinct, (1..=last).map(|number| format!("request-{number}")).collect());
    assert_eq!(ids.len(), distinct.len(), "something was sent twice: {ids:?}");
}

#[test]
fn the_service_manager_hears_that_it_is_ready_alive_reloading_and_stopping() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let mut manager = Manager::listen(directory.path());
    let variables = [("NOTIFY_SOCKET", "notify"), ("WATCHDOG_USEC", "4000000")];
    let mut process = start(&RUN, directory.path(), &variables);
    process.until("ready", |_| manager.hears("READY=1\nSTATUS="));
    process.until("alive", |_| manager.hears("WATCHDOG=1\n"));
    process.signal("HUP");
    process.until("reloading", |_| manager.hears("RELOADING=1\nMONOTONIC_USEC="));
    process.until("ready again", |_| manager.hears("READY=1\nSTATUS=the pipeline runs\n"));
    process.until("alive again", |_| manager.hears("WATCHDOG=1\n"));
    process.signal("TERM");
    process.end().with(0);
    assert!(manager.hears("STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000\n"));
}

#[test]
fn the_service_manager_hears_of_every_stop_however_little_there_is_to_do() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let mut manager = Manager::listen(directory.path());
    for _ in 0..10 {
        let mut process = start(&RUN, directory.path(), &[("NOTIFY_SOCKET", "notify")]);
        process.until("ready", |_| manager.hears("READY=1\nSTATUS="));
        process.signal("TERM");
        process.end().with(0);
        assert!(manager.hears("STOPPING=1\n"), "it ended without a word");
    }
}

#[test]
fn the_journal_gets_the_priority_and_no_time_and_a_mistake_is_an_error_there() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let journal = [("JOURNAL_STREAM", "{stderr}")];
    let mut process = start(&RUN, directory.path(), &journal);
    process.until_logged("<6>started version=");
    process.signal("TERM");
    process.end().with(0);
    write_config(directory.path(), "memory = 0");
    let ended = start(&RUN, directory.path(), &journal).end().with(2);
    assert!(ended.stderr.starts_with("<3>auditferry: a.toml:1: memory: must be "), "{}", ended.stderr);
    // The variable is inherited by what a service starts, whose stderr may be a file.
    let elsewhere = [("JOURNAL_STREAM", "1:1")];
    let ended = start(&RUN, directory.path(), &elsewhere).end().with(2);
    assert!(ended.stderr.starts_with("auditferry: a.toml:1: "), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_flow_starts_what_changed_leaves_the_rest_alone_and_loses_and_repeats_nothing() {
    let [kept, changed, added] = [
        Collector::start(Protocol::Any).await,
        Collector::start(Protocol::Any).await,
        Collector::start(Protocol::Any).await,
    ];
    let before = [to("kept", &kept, ""), to("changed", &changed, ""), to("removed", &added, "")];
    let directory = configured(&flowing(FREE_PORT, &before));
    deliver(directory.path(), "1", &[1]);
    let mut process = Process::start(&RUN, directory.path());
    let address = process.address();
    process.until("the first event everywhere", |_| {
        [&kept, &changed, &added].iter().all(|collector| collector.events().len() == 1)
    });
    // Both have a request under way when the reload comes.
    for collector in [&kept, &changed] {
        collector.push(Step::answer(200, "").keeping().delayed(Duration::from_millis(500)));
    }
    deliver(directory.path(), "2", &[2]);
    process.until("requests under way", |_| kept.count_requests() == 2 && changed.count_requests() == 2);
    let after =
        [to("kept", &kept, ""), to("changed", &changed, "batch.max_events = 1"), to("added", &added, "")];
    write_config(directory.path(), &flowing(FREE_PORT, &after));
    process.signal("HUP");
    for number in 3..20 {
        deliver(directory.path(), &number.to_string(), &[number]);
    }
    process.until_logged("the new configuration is in force");
    let log = process.stderr();
    for told in ["\"started\":2", "\"ended\":2", "\"untouched\":1"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    let all =
        |collector: &Collector| request_ids(&collector.events()).iter().collect::<BTreeSet<_>>().len() == 19;
    process.until("all events", |_| all(&kept) && all(&changed) && added.events().len() >= 20);
    has_each_once(&kept, 19);
    has_each_once(&changed, 19);
    assert_eq!(status(&address)["reload"]["result"], "ok");
    assert!(reloads(&address, "ok"));
    let metrics = get(&address, "/metrics");
    assert!(!metrics.contains("output=\"removed\""), "alerts on what is gone would never end");
    assert!(metrics.contains("output=\"added\""));
    process.signal("TERM");
    process.end().with(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_is_refused_as_a_whole_and_the_old_one_goes_on() {
    let collector = Collector::start(Protocol::Any).await;
    let good = flowing(FREE_PORT, &[to("out", &collector, "")]);
    let directory = configured(&good);
    deliver(directory.path(), "1", &[1]);
    let mut process = Process::start(&RUN, directory.path());
    let address = process.address();
    process.until("the first event", |_| collector.events().len() == 1);
    let mut refused = 0;
    for (text, complaint) in [
        (good.replace("proxy", "proxi"), "outputs.out.proxi: unknown key"),
        // A new output that is right does not come in with one that is wrong.
        (
            good.clone()
                + "[outputs.new]\ntype = \"file\"\npath = \"new.ndjson\"\n[outputs.hec]\ntype = \"splunk_hec\"\n\
                            url = \"http://127.0.0.1:1\"\ntoken = { file = \"none\" }\n",
            "outputs.hec.token",
        ),
        (
            good.replace("\"state\"", "\"other\""),
            "state_dir: cannot change while auditferry runs; restart it",
        ),
        (good.replace("127.0.0.1:0", "127.0.0.1:1"), "server.listen: cannot change while auditferry runs"),
        (FREE_PORT.to_owned() + "state_dir = \"state\"", "names no input and no output any more"),
    ] {
        write_config(directory.path(), &text);
        process.signal("HUP");
        refused += 1;
        let counted = format!("auditferry_config_reloads_total{{result=\"refused\"}} {refused}\n");
        process.until("refused", |_| get(&address, "/metrics").contains(&counted));
        let told = process.stderr().matches(complaint).count();
        assert_eq!(told, 1, "{complaint}: {}", process.stderr());
        process.until("shown", |_| {
            let reload = status(&address)["reload"].clone();
            reload["result"] == "refused" && reload["reason"].as_str().unwrap().contains(complaint)
        });
    }
    assert!(!directory.path().join("new.ndjson").exists());
    assert!(get(&address, "/readyz").ends_with("ready\n"), "what runs is what is asked for");
    deliver(directory.path(), "2", &[2]);
    process.until("the second event", |_| collector.events().len() == 2);
    write_config(directory.path(), &good);
    process.signal("HUP");
    process.until_logged("\"started\":0,\"ended\":0,\"untouched\":1");
    process.until("shown", |_| status(&address)["reload"]["result"] == "ok");
    has_each_once(&collector, 2);
    process.signal("TERM");
    process.end().with(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_ready_while_its_collector_is_down_and_the_index_says_so() {
    let collector = Collector::start(Protocol::Any).await;
    collector.set_down(Some(503));
    let grace = "shutdown_grace = \"200ms\"\n".to_owned() + FREE_PORT;
    let directory = configured(&flowing(&grace, &[to("out", &collector, "")]));
    deliver(directory.path(), "1", &[1]);
    let mut process = Process::start(&RUN, directory.path());
    let address = process.address();
    process.until("retrying", |_| status(&address)["pipelines"][0]["phase"] == "retrying");
    assert!(get(&address, "/readyz").ends_with("ready\n"));
    let index = get(&address, "/");
    assert!(
        index.contains(
            "/readyz   nothing waits for a human (a collector that is down is retried: see /status)"
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_an_output_that_holds_to_where_it_is_taken() {
    let (wrong, right) = (Collector::start(Protocol::Any).await, Collector::start(Protocol::Any).await);
    wrong.set_down(Some(401));
    let grace = "shutdown_grace = \"200ms\"\n".to_owned() + FREE_PORT;
    let directory = configured(&flowing(&grace, &[to("out", &wrong, "")]));
    deliver(directory.path(), "1", &[1, 2]);
    let mut process = Process::start(&RUN, directory.path());
    let address = process.address();
    process.until("not ready", |_| get(&address, "/readyz").contains("401"));
    write_config(directory.path(), &flowing(&grace, &[to("out", &right, "")]));
    process.signal("HUP");
    process.until("both events", |_| right.events().len() == 2);
    process.until("ready", |_| get(&address, "/readyz").ends_with("ready\n"));
    let holds = get(&address, "/metrics");
    let held = |line: &&str| line.starts_with("auditferry_hold{") && !line.ends_with(" 0");
    assert_eq!(holds.lines().find(held), None, "a hold of the pipeline before");
    has_each_once(&right, 2);
    process.signal("TERM");
    process.end().with(0);
}

#[test]
fn a_service_without_a_pipeline_waits_for_its_configuration() {
    let empty = format!("state_dir = \"state\"\n{FREE_PORT}");
    let directory = configured(&empty);
    let ended = run(&["check", "--config", "a.toml"], directory.path()).with(0);
    assert!(ended.stdout.contains("warning: nothing is configured to be shipped"), "{}", ended.stdout);
    let ended = run(&["run", "--once", "--config", "a.toml"], directory.path()).with(2);
    assert!(ended.stderr.contains("there is nothing to ship"), "{}", ended.stderr);
    let mut manager = Manager::listen(directory.path());
    let mut process = start(&RUN, directory.path(), &[("NOTIFY_SOCKET", "notify")]);
    let address = process.address();
    process.until("ready", |_| manager.hears("READY=1\nSTATUS=nothing is configured to be shipped"));
    assert_eq!(process.stderr().matches("nothing is configured to be shipped").count(), 1);
    assert!(get(&address, "/readyz").contains("add one of the `inputs` and one of the `outputs` to a.toml"));
    deliver(directory.path(), "1", &[1]);
    let output = "[outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n".to_owned();
    write_config(directory.path(), &flowing(FREE_PORT, &[output]));
    process.signal("HUP");
    process.until("the event", |_| lines(&directory.path().join("out.ndjson")).len() == 1);
    process.until("ready", |_| get(&address, "/readyz").ends_with("ready\n"));
    process.signal("TERM");
    process.end().with(0);
    write_config(directory.path(), &empty);
    let mut process = Process::start(&RUN, directory.path());
    process.until_logged("started");
    process.signal("TERM");
    process.end().with(0);
}
