//! What SECURITY.md says, as far as other tests do not hold it: nobody is asked who is not configured, no line of the log is
//! anybody else's, and no secret gets out.

use std::path::Path;

use auditferry::http::{Client, HttpSettings};
use reqwest::Method;
use reqwest::header::HeaderMap;

use crate::support::collector::{Collector, Protocol, Step};
use crate::support::place::{ONCE, configured, deliver, json_lines, write_config};
use crate::support::process::{Process, SECRET, repository, run};

fn sources(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.into_iter().chain(directories.iter().flat_map(|path| sources(path))).collect()
}

#[test]
fn every_client_there_is_follows_no_redirect_and_only_one_key_turns_verification_off() {
    let mut clients = Vec::new();
    for path in sources(&repository("src")) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let name = path.strip_prefix(repository("src")).unwrap().display().to_string();
        let made = text.matches("reqwest::Client::builder()").count();
        let elsewhere = ["reqwest::get(", "reqwest::Client::new(", "ClientBuilder::new("];
        assert!(!elsewhere.iter().any(|way| text.contains(way)), "{name} makes a client of its own");
        let sent_nowhere = text.matches(".redirect(").filter(|_| text.contains("Policy::none()")).count();
        assert_eq!(made, sent_nowhere, "{name} follows redirects");
        if made > 0 {
            clients.push(name.clone());
        }
        let unverified = ["danger_accept_invalid", "allow_invalid_certificates", "danger()"];
        let unverified = unverified.iter().filter(|way| text.contains(**way)).count();
        assert_eq!(unverified, usize::from(name == "connection.rs"), "{name}");
    }
    clients.sort();
    assert_eq!(clients, ["connection.rs"]);
}

#[tokio::test]
async fn no_client_goes_where_an_answer_sends_it() {
    let (here, elsewhere) = (Collector::start(Protocol::Any).await, Collector::start(Protocol::Any).await);
    let client =
        Client::new(&HttpSettings { proxy: Some("none".to_owned()), ..HttpSettings::default() }).unwrap();
    for status in [301, 302, 303, 307, 308] {
        let step = || Step::answer(status, "").header("location", elsewhere.url());
        here.push(step());
        let answer = client.get(here.url(), HeaderMap::new()).await.unwrap();
        assert_eq!(answer.status, status);
        here.push(step());
        let body = "{}".into();
        let answer = client.ask(Method::POST, here.url(), HeaderMap::new(), body, 100).await.unwrap();
        assert_eq!(answer.status, status);
        here.push(step());
        assert_eq!(client.open(here.url(), HeaderMap::new()).await.unwrap().status, status);
    }
    assert_eq!((here.count_requests(), elsewhere.count_connections()), (15, 0));
}

/// A place whose events go to a collector that says what a test wants.
fn talkative(collector: &Collector, format: &str) -> tempfile::TempDir {
    let output = match collector.protocol() {
        Protocol::Sumo => {
            format!("type = \"sumo\"\nurl = \"{}/receiver/v1/http/ZaVnC4dhaV39\"", collector.url())
        }
        _ => format!(
            "type = \"elastic\"\nurl = \"{}\"\napi_key = {{ env = \"TOKEN\" }}\nindex = \"audit\"",
            collector.url()
        ),
    };
    let directory = configured("");
    write_config(
        directory.path(),
        &format!(
            "state_dir = \"state\"\nserver.listen = \"none\"\nlog.format = \"{format}\"\n[inputs.in]\ntype = \"bucket\"\n\
             url = \"bucket\"\n[outputs.out]\n{output}\nproxy = \"none\"\n"
        ),
    );
    deliver(directory.path(), "first", &[1, 2]);
    directory
}

/// Text that begins a line of its own, and one that clears a terminal.
const FORGED: &str = "ok\n2026-01-05T00:00:00Z  INFO forged\r\u{1b}[2J\u{9b}2J\u{7}";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_says_begins_no_line_of_the_log_and_steers_no_terminal() {
    for format in ["text", "json"] {
        let remark = serde_json::json!({ "code": "header:invalid", "message": FORGED }).to_string();
        let sumo = Collector::start(Protocol::Sumo).await;
        sumo.push(Step::answer(200, remark).keeping());
        let bulk = Collector::start(Protocol::Bulk).await;
        let refusal = serde_json::json!({ "error": { "type": "security_exception", "reason": FORGED } });
        bulk.push(Step::answer(403, refusal.to_string()));
        for collector in [&sumo, &bulk] {
            let directory = talkative(collector, format);
            let path = directory.path().to_owned();
            let ended = tokio::task::spawn_blocking(move || run(&ONCE, &path)).await.unwrap();
            assert!(ended.stderr.contains("forged"), "{}", ended.stderr);
            let lines: Vec<_> = ended.stderr.lines().collect();
            assert!(
                !lines.iter().any(|line| line.contains(" INFO forged") && line.starts_with("2026-01-05"))
            );
            assert!(!ended.stderr.chars().any(|c| c.is_control() && c != '\n'), "{:?}", ended.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_directory_is_called_begins_no_line_of_the_log() {
    for format in ["text", "json"] {
        let directory = configured(&format!(
            "state_dir = \"state\"\nserver.listen = \"none\"\nlog.format = \"{format}\"\n[inputs.in]\ntype = \"bucket\"\n\
             url = \"bucket\"\n[outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n"
        ));
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let folder =
            directory.path().join(format!("bucket/workspaceId=7{}/date={date}", FORGED.replace('/', "")));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("auditlogs_\u{1b}[2J\nforged.json"), "no json\n").unwrap();
        let ended = run(&ONCE, directory.path());
        assert!(!ended.stderr.chars().any(|c| c.is_control() && c != '\n'), "{:?}", ended.stderr);
        assert!(
            !ended
                .stderr
                .lines()
                .any(|line| line.starts_with("2026-01-05T00:00:00Z") || line.starts_with("forged"))
        );
    }
}

#[test]
fn a_key_that_climbs_out_of_its_directory_touches_no_other() {
    let directory = configured(
        "state_dir = \"state\"\nserver.listen = \"none\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\nlayout = \"any\"\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n",
    );
    let bucket = directory.path().join("bucket");
    std::fs::create_dir_all(bucket.join("..%2f..%2foutside")).unwrap();
    std::fs::write(directory.path().join("outside.json"), "{\"timestamp\":1,\"serviceName\":\"outside\"}\n")
        .unwrap();
    std::os::unix::fs::symlink("../outside.json", bucket.join("link.json")).unwrap();
    for name in ["..%2f..%2foutside/a.json", "..%2fb.json", "%2e%2e%2fc.json", "... d.json"] {
        std::fs::write(bucket.join(name), "no json\n").unwrap();
    }
    run(&ONCE, directory.path()).with(1);
    let state = sources(&directory.path().join("state"));
    let names: Vec<_> =
        state.iter().map(|path| path.strip_prefix(directory.path()).unwrap().display().to_string()).collect();
    assert!(names.contains(&"state/dead-letters/in.out.ndjson".to_owned()), "{names:?}");
    let mut beside: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "out.ndjson")
        .collect();
    beside.sort();
    assert_eq!(beside, ["a.toml", "bucket", "outside.json", "state"]);
}

#[test]
fn names_of_inputs_and_outputs_are_no_paths() {
    for name in ["../x", "a/b", "..", "", "a b", "a.b"] {
        let directory = configured(&format!(
            "[inputs.'{name}']\ntype = \"bucket\"\nurl = \".\"\n[outputs.out]\ntype = \"file\"\npath = \"-\"\n"
        ));
        let checked = run(&["check", "--config", "a.toml"], directory.path()).with(2);
        assert!(checked.stderr.contains("inputs"), "{name}: {}", checked.stderr);
    }
}

#[test]
fn verification_that_is_off_is_said_at_every_start_whatever_it_is_of() {
    let input = |keys: &str| format!("[inputs.x]\n{keys}\n[outputs.out]\ntype = \"file\"\npath = \"-\"\n");
    let output = |keys: &str| format!("[inputs.in]\ntype = \"bucket\"\nurl = \".\"\n[outputs.x]\n{keys}\n");
    let mut configurations = vec![
        (
            "inputs.x",
            input(
                "type = \"system_table\"\nurl = \"https://w.example\"\nwarehouse_id = \"4f2ab917c0de55e1\"\ntoken = {env = \"TOKEN\"}\n\
             tls.insecure = true",
            ),
        ),
        (
            "outputs.x",
            output(
                "type = \"splunk_hec\"\nurl = \"https://h.example:8088\"\ntoken = {env = \"TOKEN\"}\ntls.insecure = true",
            ),
        ),
        ("outputs.x", output("type = \"http\"\nurl = \"https://h.example\"\ntls.insecure = true")),
    ];
    if cfg!(feature = "kafka") {
        configurations.push(("inputs.x", input(
            "type = \"kafka\"\nservers = [\"b:9093\"]\ntopics = [\"t\"]\ngroup = \"g\"\ntls.insecure = true",
        )));
    }
    for (path, text) in configurations {
        let directory = configured(&format!("state_dir = \"state\"\n{text}"));
        let checked = run(&["check", "--config", "a.toml"], directory.path());
        let warning = format!("{path}.tls.insecure: certificates are not verified");
        assert!(checked.stdout.contains(&warning), "{text}: {checked:?}");
    }
}

#[test]
fn a_collector_that_is_sent_to_in_the_clear_is_said_at_every_start() {
    let directory = configured(
        "state_dir = \"state\"\nserver.listen = \"none\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\n\
         [outputs.s]\ntype = \"splunk_hec\"\nurl = \"http://splunk.invalid:8088\"\ntoken = { env = \"TOKEN\" }\n",
    );
    std::fs::create_dir(directory.path().join("bucket")).unwrap();
    let warning =
        "outputs.s.url: http:// shows the token and the audit trail to anybody in between; use https://";
    let checked = run(&["check", "--config", "a.toml"], directory.path()).with(0);
    assert!(checked.stdout.contains(&format!("warning: {warning}\n")), "{}", checked.stdout);
    let ended = run(&ONCE, directory.path()).with(0);
    assert!(ended.stderr.contains(warning), "{}", ended.stderr);
}

#[test]
fn a_store_is_never_asked_in_the_clear_unless_that_is_allowed() {
    for table in ["s3", "gcs", "azure"] {
        let scheme = table.replace("gcs", "gs").replace("azure", "az");
        let account =
            if table == "azure" { "azure.account = \"acme\"\nazure.access_key = \"c2VjcmV0\"" } else { "" };
        let directory = configured(&format!(
            "[inputs.in]\ntype = \"bucket\"\nurl = \"{scheme}://bucket\"\n{table}.endpoint = \"http://h.example\"\n{account}\n\
             [outputs.out]\ntype = \"file\"\npath = \"-\"\n"
        ));
        let checked = run(&["check", "--config", "a.toml"], directory.path()).with(2);
        assert!(checked.stderr.contains("in the clear"), "{table}: {}", checked.stderr);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_dumps_no_core_and_leaves_none() {
    let directory = configured(
        "state_dir = \"state\"\nserver.listen = \"127.0.0.1:0\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n",
    );
    deliver(directory.path(), "first", &[1]);
    let mut process = Process::start(&["run", "--config", "a.toml"], directory.path());
    process.until_logged("started");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    process.signal("ABRT");
    assert_eq!(process.end().code, None);
    let left: Vec<_> = sources(directory.path())
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("core"))
        .collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

/// Everything a run with a secret leaves: what it logs at its most talkative, its state, its dead letters, its metrics.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_repeats_the_secret_gets_it_into_nothing() {
    for protocol in [Protocol::Hec, Protocol::Bulk] {
        let collector = Collector::start(protocol).await;
        for status in [400, 401, 429, 500] {
            // Cut in its middle, too: half a secret is one.
            collector.push(Step::answer(
                status,
                format!("{}who is {SECRET}?", "x ".repeat(status as usize % 100)),
            ));
            let long = format!("{} {SECRET} {SECRET}", "x".repeat(290));
            let body = match protocol {
                Protocol::Hec => serde_json::json!({ "text": long, "code": 6, "invalid-event-number": 0 }),
                _ => serde_json::json!({ "errors": true, "items": [{ "create": {
                    "status": 400, "error": { "type": "document_parsing_exception", "reason": long } } }] }),
            };
            collector.push(Step::answer(if protocol == Protocol::Hec { 400 } else { 200 }, body.to_string()));
        }
        let own = match protocol {
            Protocol::Hec => "type = \"splunk_hec\"\ntoken = { env = \"TOKEN\" }",
            _ => "type = \"elastic\"\napi_key = { env = \"TOKEN\" }\nindex = \"audit\"",
        };
        let directory = configured(&format!(
            "state_dir = \"state\"\nserver.listen = \"127.0.0.1:0\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\n\
             [outputs.out]\n{own}\nurl = \"{}\"\nproxy = \"none\"\nbatch.max_events = 1\n",
            collector.url()
        ));
        deliver(directory.path(), "first", &[1, 2, 3]);
        let path = directory.path().to_owned();
        let look = tokio::task::spawn_blocking(move || {
            let mut process = Process::start(&["run", "--log-level", "trace", "--config", "a.toml"], &path);
            process.until_logged("listening on");
            process.until("answered", |process| {
                process.stderr().contains("collector answered") || process.stderr().contains("hold")
            });
            // The rest is looked at where every process ends.
            process.signal("TERM");
            process.end()
        });
        let ended = look.await.unwrap();
        let half = &SECRET[..12];
        assert!(!ended.stderr.contains(half) && !ended.stdout.contains(half), "{}", ended.stderr);
    }
}

#[test]
fn a_log_of_json_stays_json() {
    let directory = configured(
        "state_dir = \"state\"\nserver.listen = \"none\"\nlog.format = \"json\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n",
    );
    deliver(directory.path(), "first", &[1]);
    let mut process = Process::start(&["run", "--config", "a.toml"], directory.path());
    process.until_logged("started");
    process.signal("TERM");
    assert!(json_lines(&process.end().with(0).stderr).len() > 1);
}

/// What the page promises is held by tests that there are.
#[test]
fn every_test_that_the_security_page_names_is_there() {
    let page = std::fs::read_to_string(repository("SECURITY.md")).unwrap();
    let mut code = String::new();
    for path in [repository("src"), repository("tests")].iter().flat_map(|directory| sources(directory)) {
        if path.extension().is_some_and(|extension| extension == "rs") {
            code += &std::fs::read_to_string(&path).unwrap();
        }
    }
    let table = page.split("## What protects").nth(1).unwrap().split("\n## ").next().unwrap();
    let names = table.split('`').filter(|name| name.contains("::") && !name.contains([' ', '(']));
    let mut count = 0;
    for name in names {
        let last = name.rsplit("::").next().unwrap();
        if last.contains('_') && last.len() > 25 {
            assert!(code.contains(&format!("fn {last}(")), "there is no test {name}");
            count += 1;
        }
    }
    assert!(count > 12, "{count}");
}
