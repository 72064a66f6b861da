//! An OpenSearch of its own for each test: the minimal server, one node, no security.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// Whom the server runs as where the tests run as root, which it refuses to: `nobody`.
pub(crate) const NOBODY: u32 = 65_534;

pub(crate) struct OpenSearch {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    settings: Vec<String>,
    process: Child,
    client: reqwest::Client,
    runtime: Runtime,
}

impl OpenSearch {
    /// Starts a server with further settings, as `http.max_content_length=100kb`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let home = std::env::var_os("AUDITFERRY_E2E_OPENSEARCH")
            .expect("AUDITFERRY_E2E_OPENSEARCH names no directory of an unpacked OpenSearch");
        let directory = tempfile::tempdir().unwrap();
        for part in ["lib", "modules", "config"] {
            link(&Path::new(&home).join(part), &directory.path().join(part));
        }
        for part in ["data", "logs", "tmp"] {
            std::fs::create_dir(directory.path().join(part)).unwrap();
        }
        let settings: Vec<String> = settings.iter().map(|setting| format!("-E{setting}")).collect();
        let (process, address) = launch(directory.path(), &settings, 0);
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { address, directory, settings, process, client, runtime }
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        let line = format!("kill -TERM {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
        self.process.wait().unwrap();
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, with the same data at the same address.
    pub(crate) fn start_again(&mut self) {
        (self.process, self.address) = launch(self.directory.path(), &self.settings, self.address.port());
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a request: the status and the body of the answer.
    pub(crate) fn try_call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut call = self.client.request(method, format!("{}{path}", self.url()));
        if let Some(body) = body {
            call = call.header("content-type", "application/json").body(body.to_string());
        }
        self.runtime.block_on(async {
            let answer = call.send().await.unwrap();
            let status = answer.status().as_u16();
            (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
        })
    }

    /// Makes a request that succeeds: the body of the answer.
    pub(crate) fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.try_call(method, path, body);
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None)
    }

    pub(crate) fn put(&self, path: &str, body: &Value) {
        self.call(Method::PUT, path, Some(body));
    }

    /// How many documents an index, or all that a pattern names, has by now.
    pub(crate) fn count(&self, index: &str) -> u64 {
        self.call(Method::POST, &format!("/{index}/_refresh"), None);
        self.get(&format!("/{index}/_count"))["count"].as_u64().unwrap()
    }
}

impl Drop for OpenSearch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until a condition holds; fails the test, saying what did not come, if it does not within two minutes.
#[expect(
    clippy::disallowed_methods,
    reason = "another process moves on in real time, and the test has nothing else to do"
)]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < until, "not within two minutes: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Starts Java without the scripts around it: they start two more to find options, and are no longer there to be ended.
fn launch(directory: &Path, settings: &[String], port: u16) -> (Child, SocketAddr) {
    let here = directory.display();
    let java = match std::env::var_os("JAVA_HOME") {
        Some(home) => Path::new(&home).join("bin/java"),
        None => PathBuf::from("java"),
    };
    let mut command = Command::new(&java);
    command
        .args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args([
            "-Djava.security.manager=allow",
            "-Dlog4j2.disable.jmx=true",
            "-Dopensearch.distribution.type=zip",
        ])
        .args(["-Dopensearch.bundled_jdk=false", &format!("-Djava.io.tmpdir={here}/tmp")])
        .args([&format!("-Dopensearch.path.home={here}"), &format!("-Dopensearch.path.conf={here}/config")])
        .args(["-cp", &format!("{here}/lib/*"), "org.opensearch.bootstrap.OpenSearch"])
        .args(["-Ediscovery.type=single-node", "-Enetwork.host=127.0.0.1", "-Etransport.port=0"])
        .args(settings)
        .arg(format!("-Ehttp.port={port}"))
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        give(directory);
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut process = command.spawn().unwrap_or_else(|error| panic!("cannot start {java:?}: {error}"));
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let (mut address, mut said) = (None, String::new());
    loop {
        let line =
            lines.next().unwrap_or_else(|| panic!("OpenSearch ended before it listened\n{said}")).unwrap();
        if line.contains("HttpServerTransport") {
            address = line
                .split_once("publish_address {")
                .and_then(|(_, rest)| rest.split('}').next()?.parse().ok());
        }
        if line.ends_with("] started") {
            break;
        }
        said.push_str(&line);
        said.push('\n');
    }
    // Its log must be read on, or it blocks when the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    (process, address.expect("OpenSearch said where it listens"))
}

/// Links a directory's files to another place, or copies them where the two are on different disks: the server needs a
/// home that its user can read, and the cache need not be one.
pub(crate) fn link(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            link(&entry.path(), &target);
        } else if std::fs::hard_link(entry.path(), &target).is_err() {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Makes `nobody` the owner of the directories, at any depth; the files in them need only be read.
pub(crate) fn give(directory: &Path) {
    chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            give(&entry.path());
        }
    }
}
