//! `auditferry check --connect` as a user types it: each mistake is told apart, in one sentence, and no event is sent.

use std::path::Path;

use serde_json::json;

use auditferry::time::Millis;

use crate::support::collector::{Collector, Protocol, Step, apis, closed_port};
use crate::support::place::configured;
use crate::support::process::{Process, run};
use crate::support::proxy::Proxy;
use crate::support::tls::Authority;
use crate::support::warehouse::{CLIENT, Rights, TOKEN, WAREHOUSE, Workspace};

const CHECK: [&str; 4] = ["check", "--connect", "--config", "a.toml"];

/// The line of the output `out` when all is checked.
fn line_of(output: &str, code: i32) -> String {
    let directory = configured(&format!(
        "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"{{samples}}\"\n[outputs.out]\n{output}\n"
    ));
    let stdout = checked(directory.path(), code);
    let connections = stdout.split("connections:\n").nth(1).unwrap();
    assert!(connections.contains("in (bucket): ok: objects can be listed and read"), "{connections}");
    connections.lines().find(|line| line.starts_with("  out ")).unwrap().to_owned()
}

fn checked(directory: &Path, code: i32) -> String {
    run(&CHECK, directory).with(code).stdout
}

fn hec(url: &str, keys: &str) -> String {
    format!("type = \"splunk_hec\"\nurl = \"{url}\"\ntoken = \"hunter2\"\nproxy = \"none\"\n{keys}")
}

fn said(status: u16, code: u16) -> Step {
    Step::answer(status, json!({"text": "said", "code": code}).to_string())
}

/// The mistake is told with this advice, and without the secret.
fn fails(output: &str, advice: &str) {
    let line = line_of(output, 1);
    assert!(line.contains("FAILED") && line.contains(advice), "{line}\nlacks {advice}");
    assert!(!line.contains("hunter2") && line.len() < 500, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mistake_with_splunk_is_told_apart() {
    let collector = Collector::start(Protocol::Hec).await;
    let (healthy, no_data) = (|| said(200, 17), || said(400, 5));
    collector.script_everything();
    // Wrong token.
    collector.push(healthy());
    collector.push(said(403, 4));
    fails(&hec(collector.url(), ""), "set `token` to a token that Splunk knows");
    // Disabled token.
    collector.push(healthy());
    collector.push(said(403, 1));
    fails(&hec(collector.url(), ""), "enable the token");
    // Wrong index.
    for step in [healthy(), no_data(), said(400, 7)] {
        collector.push(step);
    }
    fails(&hec(collector.url(), "index = \"elsewhere\""), "set `index` to one that exists");
    // No acknowledgements.
    for step in [healthy(), no_data(), said(400, 14)] {
        collector.push(step);
    }
    fails(&hec(collector.url(), "ack = true"), "has no `useACK`");
    // Splunk's web page.
    collector.push(Step::answer(303, "See other"));
    fails(&hec(collector.url(), ""), "8088");
    // Queues are full.
    collector.push(said(503, 18));
    fails(&hec(collector.url(), ""), "503");
    // No TLS on this port.
    fails(&hec(&collector.url().replace("http:", "https:"), ""), "write `url` with http://");
    assert!(collector.events().is_empty());
    // Closed port.
    fails(&hec(&closed_port(), ""), "nothing listens there");
    // Unknown authority.
    let authority = Authority::new("ours");
    let collector = Collector::start_tls(Protocol::Hec, authority.server(None)).await;
    fails(&hec(collector.url(), ""), "name that in `tls.ca_file`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_works_is_said_to_work_and_no_event_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let collector = Collector::start_tls(Protocol::Hec, authority.server(None)).await;
    collector.script_everything();
    for step in [said(200, 17), said(400, 5), said(400, 12), Step::answer(200, r#"{"acks":{"0":false}}"#)] {
        collector.push(step);
    }
    let ca = authority.file(directory.path(), "ca.pem");
    let keys = format!("index = \"main\"\nack = true\ntls.ca_file = \"{}\"", ca.display());
    let line = line_of(&hec(collector.url(), &keys), 0);
    assert!(line.contains("ok: healthy, the token is known"), "{line}");
    let asked: Vec<_> = collector.requests().iter().map(|request| request.body.clone()).collect();
    assert_eq!(asked, ["", "", r#"{"index":"main"}"#, r#"{"acks":[0]}"#], "none of it is an event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_output_is_asked_too() {
    let collector = Collector::start(Protocol::Any).await;
    let url = collector.url();
    let secret = format!("{url}/receiver/v1/http/hunter2");
    for (output, refusal, ready) in [
        (format!("type = \"sumo\"\nurl = \"{secret}\""), 401, (200, "")),
        (format!("type = \"http\"\nurl = \"{secret}\""), 403, (405, "")),
        (
            format!("type = \"elastic\"\nurl = \"{url}\"\nindex = \"audit\"\napi_key = \"hunter2\""),
            401,
            (400, r#"{"error":{"type":"parse_exception","reason":"request body is required"},"status":400}"#),
        ),
    ] {
        let output = format!("{output}\nproxy = \"none\"");
        collector.push(Step::answer(refusal, ""));
        fails(&output, &refusal.to_string());
        collector.push(Step::answer(ready.0, ready.1));
        let line = line_of(&output, 0);
        assert!(line.contains(": ok: "), "{line}");
    }
    assert!(collector.requests().iter().all(|request| request.body.is_empty()));
    assert!(
        line_of("type = \"file\"\npath = \"events.ndjson\"", 0).contains("made when the first event comes")
    );
    fails("type = \"file\"\npath = \"/proc/1/mem/events\"", "cannot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_collectors_that_are_services_are_asked_without_an_event() {
    let invalid = r#"{"error":{"code":"InvalidPayload","message":"no rows","status":"INVALID_ARGUMENT"}}"#;
    for (protocol, refusals, ready, body) in [
        (
            Protocol::Datadog,
            [(403, "set `api_key`"), (404, "check `site`")],
            [(202, "{}"), (400, r#"{"errors":[{"detail":"empty"}]}"#)],
            "[]",
        ),
        (
            Protocol::Sentinel,
            [(403, "Monitoring Metrics Publisher"), (404, "check `url`, `rule_id` and `stream`")],
            [(204, ""), (400, invalid)],
            "[]",
        ),
        (
            Protocol::Otlp,
            [(401, "check `headers`"), (404, "/v1/logs is added to it")],
            [(200, ""), (200, "")],
            "",
        ),
        (
            Protocol::Loki,
            [(401, "`bearer_token`"), (404, "/loki/api/v1/push is added to it")],
            [(204, ""), (422, "error at least one valid stream is required for ingestion")],
            r#"{"streams":[]}"#,
        ),
        (
            Protocol::SecOps,
            [(403, "chronicle.logs.import"), (404, "`log_type`")],
            [(200, "{}"), (400, invalid)],
            r#"{"inlineSource":{"logs":[]}}"#,
        ),
    ] {
        let collector = Collector::start(protocol).await;
        collector.script_everything();
        let output = |url: &str| format!("{}proxy = \"none\"", apis::table(protocol, url));
        for (status, advice) in refusals {
            collector.push(Step::answer(status, "{}"));
            fails(&output(collector.url()), advice);
        }
        collector.push(Step::answer(307, "elsewhere"));
        fails(&output(collector.url()), "307");
        for (status, said) in ready {
            collector.push(Step::answer(status, said));
            let line = line_of(&output(collector.url()), 0);
            assert!(line.contains(": ok: ") && line.len() < 300, "{line}");
        }
        assert!(collector.requests().iter().all(|request| request.body == body), "{protocol:?}");
        // Entra ID is asked first, and has moved along.
        let advice = if protocol == Protocol::Sentinel { "no access token" } else { "nothing listens there" };
        fails(&output(&closed_port()), advice);
    }
}

fn wall_clock() -> Millis {
    Millis::new(jiff::Timestamp::now().as_millisecond()).unwrap()
}

/// The line of the input `table` when all is checked.
fn table_line(workspace: &Workspace, keys: &str, code: i32) -> String {
    let directory = configured(&format!(
        "state_dir = \"state\"\n[inputs.table]\ntype = \"system_table\"\nurl = \"{}\"\nproxy = \"none\"\n{keys}\n\
         [outputs.out]\ntype = \"file\"\npath = \"-\"\n",
        workspace.url()
    ));
    let stdout = checked(directory.path(), code);
    let connections = stdout.split("connections:\n").nth(1).unwrap();
    let line = connections.lines().find(|line| line.starts_with("  table ")).unwrap().to_owned();
    assert!(!line.contains("hunter2") && line.len() < 600, "{line}");
    line
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_table_is_looked_at_without_starting_its_warehouse() {
    let workspace = Workspace::start(wall_clock).await;
    let by_token = format!("warehouse_id = \"{WAREHOUSE}\"\ntoken = \"{TOKEN}\"");
    let by_secret = format!(
        "warehouse_id = \"{WAREHOUSE}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"",
        CLIENT.0, CLIENT.1
    );
    for login in [&by_token, &by_secret] {
        let line = table_line(&workspace, login, 0);
        assert!(line.contains("ok: the table can be seen") && line.contains("is stopped"), "{line}");
    }
    for (rights, advice) in [
        (Rights { no_can_use: true, ..Rights::default() }, "CAN USE on the SQL warehouse"),
        (Rights { no_use_schema: true, ..Rights::default() }, "GRANT USE SCHEMA ON SCHEMA system.access"),
        (Rights { no_select: true, ..Rights::default() }, "GRANT SELECT ON TABLE system.access.audit"),
        (Rights { no_table: true, ..Rights::default() }, "enable the system schema `access`"),
    ] {
        workspace.set_rights(rights);
        let line = table_line(&workspace, &by_token, 1);
        assert!(line.contains("FAILED") && line.contains(advice), "{line}");
    }
    workspace.set_rights(Rights::default());
    let elsewhere = by_token.replace(WAREHOUSE, "0000000000000000");
    let line = table_line(&workspace, &elsewhere, 1);
    assert!(line.contains("FAILED") && line.contains("check `warehouse_id`"), "{line}");
    let line = table_line(&workspace, &by_token.replace(TOKEN, "dapi-hunter2-old"), 1);
    assert!(line.contains("FAILED") && line.contains("check `token`"), "{line}");
    let line = table_line(&workspace, &by_secret.replace(CLIENT.1, "hunter2-wrong"), 1);
    assert!(line.contains("FAILED") && line.contains("`client_secret`"), "{line}");
    assert_eq!(workspace.asked("/sql/statements"), 0, "no statement was run: {:?}", workspace.log());
}

/// The line of a bucket that a server of S3's protocol at `endpoint` has, when all is checked.
fn bucket_line(endpoint: &str, keys: &str, code: i32) -> String {
    let directory = configured(&format!(
        "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"s3://audit/logs\"\ns3.endpoint = \"{endpoint}\"\n\
         s3.allow_http = true\ns3.access_key_id = \"a\"\ns3.secret_access_key = \"b\"\n{keys}\n\
         [outputs.out]\ntype = \"file\"\npath = \"-\"\n",
    ));
    let stdout = checked(directory.path(), code);
    let connections = stdout.split("connections:\n").nth(1).unwrap();
    connections.lines().find(|line| line.starts_with("  in ")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_store_does_not_answer_is_told() {
    let (authority, plain) = (Authority::new("ours"), Collector::start(Protocol::Any).await);
    let store = Collector::start_tls(Protocol::Any, authority.server(None)).await;
    let direct = "proxy = \"none\"";
    for (endpoint, keys, reason) in [
        (closed_port(), direct.to_owned(), "nothing listens there"),
        (store.url().to_owned(), direct.to_owned(), "name that in `tls.ca_file`"),
        (plain.url().replace("http:", "https:"), direct.to_owned(), "check that the port speaks TLS"),
        ("https://nowhere.invalid".to_owned(), direct.to_owned(), "check the name in the endpoint"),
        (
            closed_port(),
            format!("proxy = \"{}\"\nno_proxy = \"\"", closed_port()),
            "check the endpoint and `proxy`",
        ),
    ] {
        let line = bucket_line(&endpoint, &keys, 1);
        assert!(line.contains("in (bucket): FAILED: cannot list logs"), "{line}");
        assert!(line.contains(reason), "{line}\nlacks {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_may_have_an_authority_of_its_own_want_a_certificate_and_lie_behind_a_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let store = Collector::start_tls(Protocol::Any, authority.server(Some(&authority))).await;
    let proxy = Proxy::start(None).await;
    let ca = authority.file(directory.path(), "ca.pem");
    let [certificate, key] = authority.client(directory.path());
    let trusting = format!("tls.ca_file = {ca:?}\nproxy = \"{}\"\nno_proxy = \"\"", proxy.url());
    let line = bucket_line(store.url(), &trusting, 1);
    assert!(line.contains("CertificateRequired") && line.contains("`tls.cert_file`"), "{line}");
    assert_eq!(store.count_requests(), 0);

    let known = format!("{trusting}\ntls.cert_file = {certificate:?}\ntls.key_file = {key:?}");
    store.push(Step::answer(200, "<ListBucketResult></ListBucketResult>"));
    let line = bucket_line(store.url(), &known, 0);
    assert!(line.contains("ok: it can be listed"), "{line}");
    let address = store.url().trim_start_matches("https://");
    assert!(!proxy.targets().is_empty() && proxy.targets().iter().all(|target| target == address));

    let there = proxy.targets().len();
    store.push(Step::answer(200, "<ListBucketResult></ListBucketResult>"));
    bucket_line(store.url(), &known.replace("no_proxy = \"\"", "no_proxy = \"127.0.0.0/8\""), 0);
    assert_eq!(proxy.targets().len(), there, "the host is excepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_google_refuses_is_told_from_a_metadata_service_that_is_away() {
    let metadata = Collector::start(Protocol::Any).await;
    let directory = configured(
        "state_dir = \"state\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"{samples}\"\n[outputs.out]\n\
         type = \"google_secops\"\nproject = \"acme\"\nlocation = \"us\"\ninstance = \"1f2e\"\nlog_type = \"DATABRICKS\"\n",
    );
    let host = metadata.url().trim_start_matches("http://").to_owned();
    let environment = [("GCE_METADATA_HOST", host.clone()), ("GCE_METADATA_IP", host)];
    for (status, advice) in [(403, "give the machine or pod a service account"), (503, "run where there is")]
    {
        metadata.script_everything();
        // It is asked at its name and at its number.
        metadata.push(Step::answer(status, "no"));
        metadata.push(Step::answer(status, "no"));
        let checked = Process::start_with(&CHECK, directory.path(), &environment).end().with(1).stdout;
        assert!(checked.contains("FAILED") && checked.contains(advice), "{status}: {checked}");
    }
}
