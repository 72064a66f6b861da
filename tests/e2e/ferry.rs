//! Runs the binary with a configuration, a state directory and a file that it delivers to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::moto::BUCKET;
use crate::secrets::Secrets;

/// What is run: the binary of this build, or another one, such as that of a package.
pub(crate) fn program() -> String {
    std::env::var("AUDITFERRY_E2E_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_auditferry").to_owned())
}

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
        let s3 = format!("[inputs.audit.s3]\nendpoint = \"http://{endpoint}\"\nallow_http = true\n{s3}");
        Self::configured(url, &s3, "")
    }

    /// Reads a URL; `input` holds further lines of the input's table and its own tables, `outputs` the tables of the
    /// outputs: if none, it is a file.
    pub(crate) fn configured(url: &str, input: &str, outputs: &str) -> Self {
        Self::in_layout("databricks_delivery", url, input, outputs)
    }

    /// Reads the directory `logs` in `bucket` and sends to Splunk at an address; `keys` holds further lines of the output.
    pub(crate) fn to_splunk(bucket: &TempDir, url: &str, keys: &str) -> Self {
        let direct = if keys.contains("proxy") { "" } else { "proxy = \"none\"\n" };
        let output = format!(
            "[outputs.splunk]\ntype = \"splunk_hec\"\nurl = \"{url}\"\ntoken = \"hunter2\"\n\
             batch.max_age = \"50ms\"\n{direct}{keys}\n"
        );
        let root = bucket.path().join("logs");
        std::fs::create_dir_all(&root).unwrap();
        Self::configured(&root.display().to_string(), "poll_interval = \"1s\"", &output)
    }

    /// The same in another layout.
    pub(crate) fn in_layout(layout: &str, url: &str, input: &str, outputs: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().display();
        let file = format!("[outputs.out]\ntype = \"file\"\npath = \"{here}/events.ndjson\"\n");
        let outputs = if outputs.is_empty() { &file } else { outputs };
        let text = format!(
            r#"
            state_dir = "{here}/state"

            [server]
            listen = "127.0.0.1:0"

            [inputs.audit]
            type = "bucket"
            url = "{url}"
            layout = "{layout}"
            {input}

            {outputs}
            "#
        );
        let config = directory.path().join("auditferry.toml");
        std::fs::write(&config, text).unwrap();
        Self { directory, config }
    }

    /// Puts another configuration in place of what it has.
    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(&self.config, text).unwrap();
    }

    /// This configuration and no other.
    pub(crate) fn whole(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("auditferry.toml");
        std::fs::write(&config, text).unwrap();
        Self { directory, config }
    }

    /// Ships what there is. The environment holds nothing but what is given; nothing asks the machine's metadata.
    pub(crate) fn run_with(&self, environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["120", &program(), "run", "--once", "--config"]);
        let output = self.surrounded(&mut command).envs(environment.iter().copied()).output().unwrap();
        let secrets = Secrets::of(&self.config, environment);
        secrets.are_not_in(&output.stderr, "the log");
        secrets.are_in_no_file_of(&self.directory.path().join("state"));
        output
    }

    /// Starts it, to go on reading.
    pub(crate) fn start(&self) -> Running {
        let log = self.directory.path().join("log");
        let mut command = Command::new(program());
        command.args(["run", "--config"]);
        let stderr = std::fs::File::create(&log).unwrap();
        let child = self.surrounded(&mut command).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let (secrets, state) = (Secrets::of(&self.config, &[]), self.directory.path().join("state"));
        Running { child, log, secrets, state }
    }

    fn surrounded<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .arg(&self.config)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }

    /// Ships what there is, and succeeds.
    pub(crate) fn run(&self) {
        succeeded(&self.run_with(&[]));
    }

    /// The request ids of all events delivered so far, in order.
    pub(crate) fn delivered(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.directory.path().join("events.ndjson")).unwrap_or_default();
        // The last line may be under way.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let request_id = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["request_id"].as_str().unwrap().to_owned()
        };
        whole.lines().map(request_id).collect()
    }

    /// All runs so far delivered each of these records once, and nothing else.
    pub(crate) fn assert_delivered_once(&self, numbers: impl IntoIterator<Item = usize>) {
        let mut delivered: BTreeMap<String, usize> = BTreeMap::new();
        for name in self.delivered() {
            *delivered.entry(name).or_default() += 1;
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

/// A process that goes on reading; it is killed when dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    secrets: Secrets,
    state: PathBuf,
}

impl Running {
    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Sends a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let line = [format!("-{name}"), self.child.id().to_string()];
        assert!(Command::new("kill").args(line).status().unwrap().success());
    }

    /// A counter of the pipeline, as Prometheus would read it.
    pub(crate) fn metric(&self, name: &str) -> usize {
        let log = self.log();
        let Some((_, rest)) = log.split_once("listening on http://") else { return 0 };
        let address: String =
            rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("auditferry_{name}{{")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }

    /// Ends it as systemd does, and it ends well.
    pub(crate) fn stop(mut self) {
        self.secrets.are_not_shown(&self.log());
        self.signal("TERM");
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{ended}\n{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            self.secrets.are_not_in(self.log().as_bytes(), "the log");
            self.secrets.are_in_no_file_of(&self.state);
        }
    }
}

/// Waits until a condition holds; fails the test, saying what did not come, if it does not within a minute.
#[expect(
    clippy::disallowed_methods,
    reason = "another process moves on in real time, and the test has nothing else to do"
)]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
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

/// What `check --connect` says of a configuration, and how it ends.
pub(crate) fn checked(config: &Path) -> (String, Option<i32>) {
    let output = Command::new("timeout")
        .args(["120", &program(), "check", "--connect", "--config"])
        .arg(config)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
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
pub(crate) fn name(number: usize) -> String {
    format!("request-{number:06}")
}

/// Puts an object of these records into the directory `logs` in `bucket`.
pub(crate) fn put(bucket: &Path, object: &str, numbers: std::ops::Range<usize>) {
    put_text(bucket, object, &content(&numbers.collect::<Vec<_>>()));
}

/// Puts an object into the directory `logs` in `bucket`, as a store does: at once.
pub(crate) fn put_text(bucket: &Path, object: &str, text: &str) {
    let path = bucket.join(key(1, object));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let partial = path.with_file_name(format!(".{object}.partial"));
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(partial, path).unwrap();
}

/// An object's content: records, each with its line end.
pub(crate) fn content(numbers: &[usize]) -> String {
    numbers.iter().map(|number| record(*number) + "\n").collect()
}

/// What a round does to an object of these records: adds ten at the end, in the middle or in reverse at the front, or only
/// touches it.
pub(crate) fn change(lines: &mut Vec<usize>, round: usize) {
    let new = round * 10..round * 10 + 10;
    match round % 4 {
        0 => lines.extend(new),
        1 => {
            let middle = lines.len() / 2;
            lines.splice(middle..middle, new);
        }
        2 => {
            lines.splice(0..0, new);
            lines.reverse();
        }
        _ => {}
    }
}
