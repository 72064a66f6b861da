//! Runs the binary with a configuration, a state directory and a file that it delivers to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::moto::BUCKET;

pub(crate) struct Ferry {
    pub(crate) directory: TempDir,
    config: PathBuf,
}

impl Ferry {
    /// Reads `s3://audit/logs` at an address; `s3` holds further lines of the input's table `s3`.
    pub(crate) fn new(endpoint: SocketAddr, s3: &str) -> Self {
        Self::reading(&format!("s3://{BUCKET}/logs"), endpoint, s3)
    }

    /// Reads a URL at an address.
    pub(crate) fn reading(url: &str, endpoint: SocketAddr, s3: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().display();
        let text = format!(
            r#"
            state_dir = "{here}/state"

            [server]
            listen = "127.0.0.1:0"

            [inputs.audit]
            type = "bucket"
            url = "{url}"
            layout = "databricks_delivery"

            [inputs.audit.s3]
            endpoint = "http://{endpoint}"
            allow_http = true
            {s3}

            [outputs.out]
            type = "file"
            path = "{here}/events.ndjson"
            "#
        );
        let config = directory.path().join("auditferry.toml");
        std::fs::write(&config, text).unwrap();
        Self { directory, config }
    }

    /// Ships what there is. The environment holds nothing but what is given; nothing asks the machine's metadata.
    pub(crate) fn run_with(&self, environment: &[(&str, &str)]) -> Output {
        Command::new("timeout")
            .args(["120", env!("CARGO_BIN_EXE_auditferry"), "run", "--once", "--config"])
            .arg(&self.config)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// Ships what there is, and succeeds.
    pub(crate) fn run(&self) {
        succeeded(&self.run_with(&[]));
    }

    /// All runs so far delivered each of these records once, and nothing else.
    pub(crate) fn assert_delivered_once(&self, numbers: impl IntoIterator<Item = usize>) {
        let text = std::fs::read_to_string(self.directory.path().join("events.ndjson")).unwrap_or_default();
        let mut delivered: BTreeMap<String, usize> = BTreeMap::new();
        for line in text.lines() {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            *delivered.entry(event["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let expected: BTreeSet<String> = numbers.into_iter().map(name).collect();
        let missing: Vec<&String> = expected.iter().filter(|name| !delivered.contains_key(*name)).collect();
        let wrong: Vec<_> =
            delivered.iter().filter(|(name, count)| **count != 1 || !expected.contains(*name)).collect();
        // Thousands of names would hide everything else.
        assert!(
            missing.is_empty() && wrong.is_empty(),
            "{} missing: {:?} …; {} repeated or unexpected: {:?} …",
            missing.len(),
            missing.iter().take(5).collect::<Vec<_>>(),
            wrong.len(),
            wrong.iter().take(5).collect::<Vec<_>>()
        );
    }
}

pub(crate) fn succeeded(output: &Output) {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Static keys, which moto takes for good.
pub(crate) const KEYS: &str = "access_key_id = \"AKIDSTATIC\"\nsecret_access_key = \"secret\"";

/// The key of an object of a workspace, today: its date is open.
pub(crate) fn key(workspace: u64, object: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!("logs/workspaceId={workspace}/date={now}/auditlogs_{object}.json")
}

/// A record as Databricks delivers it, without a line end; `number` names it.
pub(crate) fn record(number: usize) -> String {
    format!(
        r#"{{"version":"2.0","auditLevel":"WORKSPACE_LEVEL","timestamp":{},"orgId":"1","accountId":"5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10","sourceIPAddress":"198.51.100.24","userAgent":"databricks-cli/0.240.0","sessionId":null,"userIdentity":{{"email":"dana@example.com","subjectName":null}},"serviceName":"jobs","actionName":"create","requestId":"{}","requestParams":{{"name":"nightly-load-{number}"}},"response":{{"statusCode":200,"errorMessage":null,"result":null}}}}"#,
        1_767_609_296_123 + number,
        name(number),
    )
}

/// The request id of [`record`].
fn name(number: usize) -> String {
    format!("request-{number:06}")
}

/// An object's content: records, each with its line end.
pub(crate) fn content(numbers: &[usize]) -> String {
    numbers.iter().map(|number| record(*number) + "\n").collect()
}
