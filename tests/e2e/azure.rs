//! Reading the append blobs of Azure Monitor in a storage account.

use std::sync::LazyLock;

use crate::azurite::{ACCOUNT, ACCOUNT_KEY, Azurite, account_sas};
use crate::ferry::{Ferry, eventually};
use crate::recorder::Recorder;

const WORKSPACE: &str = "/SUBSCRIPTIONS/11111111-2222-3333-4444-555555555555/RESOURCEGROUPS/RG-DATA/PROVIDERS/MICROSOFT.DATABRICKS/WORKSPACES/DBW-PROD";

/// Reads the account at an address, with further keys of the input and of its table `azure`.
fn ferry(address: std::net::SocketAddr, layout: &str, input: &str, azure: &str) -> Ferry {
    let input = format!(
        "poll_interval = \"1s\"\n{input}\n[inputs.audit.azure]\nendpoint = \"http://{address}/{ACCOUNT}\"\n\
         allow_http = true\n{azure}"
    );
    Ferry::in_layout(layout, &format!("az://{ACCOUNT}"), &input, "")
}

fn key() -> String {
    format!("access_key = \"{ACCOUNT_KEY}\"")
}

/// A container's blob of the hour in which the tests began.
fn blob(container: &str) -> String {
    static HOUR: LazyLock<String> =
        LazyLock::new(|| jiff::Timestamp::now().strftime("y=%Y/m=%m/d=%d/h=%H/m=00").to_string());
    format!("{container}/resourceId={WORKSPACE}/{}/PT1H.json", *HOUR)
}

/// A record as a diagnostic setting writes it, with its line end; `number` names it.
fn record(number: usize) -> String {
    format!(
        "{{\"resourceId\":\"{WORKSPACE}\",\"operationVersion\":\"1.0.0\",\"identity\":\"{{\\\"email\\\":\\\"dana@example.com\\\"}}\",\
         \"operationName\":\"Microsoft.Databricks/jobs/create\",\"time\":\"2026-01-05T10:34:56Z\",\"category\":\"jobs\",\
         \"properties\":{{\"logId\":\"{number:08x}-90b4-3c11-8f2e-4d5a6b7c8d90\",\"serviceName\":\"jobs\",\"actionName\":\"create\",\
         \"requestId\":\"request-{number:06}\",\"response\":\"{{\\\"statusCode\\\":200}}\",\
         \"requestParams\":\"{{\\\"name\\\":\\\"{}\\\"}}\"}}}}\n",
        "x".repeat(number * 7919 % 400)
    )
}

fn records(numbers: std::ops::Range<usize>) -> String {
    numbers.map(record).collect()
}

#[test]
fn an_append_blob_that_grows_at_arbitrary_bytes_is_delivered_once_in_order_and_costs_little_more() {
    let azurite = Azurite::start();
    azurite.create_container("insights-logs-jobs");
    let blob = blob("insights-logs-jobs");
    azurite.create_blob(&blob);
    let recorder = Recorder::start(azurite.address);
    let ferry = ferry(recorder.address, "azure_diagnostic", "", &key());
    let live = ferry.start();

    let content = records(0..8000);
    let mut random = fastrand::Rng::with_seed(11);
    let mut written = 0;
    for append in 0..200 {
        let bytes = random.usize(1024..50 * 1024).min(content.len() - written);
        azurite.append(&blob, &content.as_bytes()[written..written + bytes]);
        written += bytes;
        if append % 10 == 9 {
            // As a poll comes to it, in the middle of a line.
            let whole = content[..written].matches('\n').count();
            eventually(&format!("{whole} events after {append} appends"), || {
                ferry.delivered().len() >= whole
            });
        }
    }
    let whole = content[..written].matches('\n').count();
    ferry.assert_delivered_once(0..whole);
    let in_order: Vec<String> = (0..whole).map(|number| format!("request-{number:06}")).collect();
    assert_eq!(ferry.delivered(), in_order);
    let answered = recorder.answered();
    let (reads, fetched) = blob_bytes(&answered);
    let most = written + written / 10 + reads * 64 * 1024;
    assert!(reads >= 20 && fetched <= most, "{fetched} bytes fetched for {written} in {reads} reads");
    assert!(!answered.contains("HTTP/1.1 416"), "nothing is asked for beyond the end");
    live.stop();
}

/// How often a part of the blob was read, and its bytes.
fn blob_bytes(answered: &str) -> (usize, usize) {
    let lengths =
        ["HTTP/1.1 206", "HTTP/1.1 200"].into_iter().flat_map(|status| answered.split(status).skip(1));
    let lengths: Vec<usize> = lengths
        .filter_map(|answer| answer.split_once("\r\n\r\n").map(|(head, _)| head.to_ascii_lowercase()))
        .filter(|head| head.contains("x-ms-blob-type: appendblob"))
        .filter_map(|head| head.split_once("content-length: ")?.1.split("\r\n").next()?.parse().ok())
        .collect();
    (lengths.len(), lengths.iter().sum())
}

#[test]
fn all_containers_of_an_account_are_read_and_a_connection_string_will_do() {
    let azurite = Azurite::start();
    for (number, container) in
        ["insights-logs-jobs", "insights-logs-dbfs", "insights-logs-ssh"].into_iter().enumerate()
    {
        azurite.create_container(container);
        azurite.create_blob(&blob(container));
        azurite.append(&blob(container), record(number).as_bytes());
    }
    azurite.create_container("insights-metrics");
    azurite.create_blob(&blob("insights-metrics"));
    azurite.append(&blob("insights-metrics"), record(99).as_bytes());
    let connection = format!("connection_string = \"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY}\"");
    let ferry = ferry(azurite.address, "azure_diagnostic", "", &connection);
    ferry.run();
    ferry.assert_delivered_once(0..3);
    azurite.append(&blob("insights-logs-ssh"), record(3).as_bytes());
    ferry.run();
    ferry.assert_delivered_once(0..4);
}

#[test]
fn an_export_is_read_with_its_overflow_files_and_what_comes_late_to_an_old_folder() {
    let azurite = Azurite::start();
    azurite.create_container("am-databricksjobs");
    let folder = "am-databricksjobs/WorkspaceResourceId=/subscriptions/s/resourcegroups/rg/providers/microsoft.operationalinsights/workspaces/log";
    let old = format!("{folder}/y=2026/m=01/d=05/h=10/m=05/PT05M.json");
    let overflow = format!("{folder}/y=2026/m=01/d=05/h=10/m=05/PT05M_1.json");
    let row = |number: usize| {
        format!(
            "{{\"TimeGenerated\":\"2026-01-05T10:36:00.0000000Z\",\"LogId\":\"{number}\",\"ServiceName\":\"jobs\",\"ActionName\":\"create\",\
             \"RequestId\":\"request-{number:06}\",\"Type\":\"DatabricksJobs\"}}\n"
        )
    };
    for (number, blob) in [&old, &overflow].into_iter().enumerate() {
        azurite.create_blob(blob);
        azurite.append(blob, row(number).as_bytes());
    }
    let ferry = ferry(azurite.address, "log_analytics_export", "", &key());
    ferry.run();
    ferry.assert_delivered_once(0..2);
    azurite.append(&old, row(2).as_bytes());
    // A run of its own is a look at everything: the pass before has not been marked as complete.
    ferry.run();
    ferry.assert_delivered_once(0..3);
}

#[test]
fn a_container_that_does_not_exist_holds_the_others_go_on_and_it_is_read_once_it_is_there() {
    let azurite = Azurite::start();
    azurite.create_container("insights-logs-jobs");
    let jobs = blob("insights-logs-jobs");
    azurite.create_blob(&jobs);
    azurite.append(&jobs, record(0).as_bytes());
    let named = "containers = [\"insights-logs-jobs\", \"insights-logs-ssh\"]";
    let ferry = ferry(azurite.address, "azure_diagnostic", named, &key());
    let live = ferry.start();
    eventually("the sentence", || {
        live.log().contains("the container insights-logs-ssh does not exist; check `containers`")
    });
    eventually("the other container", || ferry.delivered().len() == 1);
    azurite.append(&jobs, record(1).as_bytes());
    eventually("what is added to it", || ferry.delivered().len() == 2);
    azurite.create_container("insights-logs-ssh");
    azurite.create_blob(&blob("insights-logs-ssh"));
    azurite.append(&blob("insights-logs-ssh"), record(2).as_bytes());
    eventually("the container that was missing", || ferry.delivered().len() == 3);
    ferry.assert_delivered_once(0..3);
    live.stop();
}

#[test]
fn a_sas_that_may_not_list_or_has_expired_holds_until_a_better_one_is_in_its_file() {
    let azurite = Azurite::start();
    azurite.create_container("insights-logs-jobs");
    azurite.create_blob(&blob("insights-logs-jobs"));
    azurite.append(&blob("insights-logs-jobs"), record(0).as_bytes());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sas");
    std::fs::write(&file, account_sas("r", "2099-01-01T00:00:00Z")).unwrap();
    let sas = format!("sas_token = {{ file = \"{}\" }}", file.display());
    let ferry = ferry(azurite.address, "azure_diagnostic", "", &sas);
    assert_eq!(ferry.run_with(&[]).status.code(), Some(2), "a single run does not wait for a human");
    let live = ferry.start();
    eventually("the missing right", || {
        live.log().contains("give the SAS in azure.sas_token the permissions Read and List")
    });
    std::fs::write(&file, account_sas("rl", "2020-01-01T00:00:00Z")).unwrap();
    eventually("the time", || {
        live.log().contains("the SAS expired at 2020-01-01T00:00:00Z; put a new one in azure.sas_token")
    });
    assert!(ferry.delivered().is_empty());
    std::fs::write(&file, account_sas("rl", "2099-01-01T00:00:00Z")).unwrap();
    eventually("the record", || ferry.delivered().len() == 1);
    live.stop();
}
