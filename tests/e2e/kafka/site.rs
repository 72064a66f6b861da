//! Where a run of a test against the broker happens: its directory and its process.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::ferry::{checked, program};
use crate::secrets::Secrets;

/// Longest wait for anything: far more than it takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// `memory` of the configuration: what may be in flight.
pub(super) const MEMORY: usize = 4 << 20;

/// A place with a configuration, a state, and a file that is delivered to.
pub(super) struct Site {
    directory: TempDir,
}

impl Site {
    /// Reads with this input, named `hub`.
    pub(super) fn new(input: &str) -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        let here = site.directory.path().display();
        let text = format!(
            r#"
            state_dir = "{here}/state"
            memory = "{MEMORY}B"
            [server]
            listen = "none"
            [inputs.hub]
            {input}
            [outputs.out]
            type = "file"
            path = "{here}/events.ndjson"
            batch.max_age = "20ms"
            "#
        );
        std::fs::write(site.path("auditferry.toml"), text).unwrap();
        site
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--signal=KILL", "300", &program(), "run"])
            .args(arguments)
            .arg("--config")
            .arg(self.path("auditferry.toml"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    pub(super) fn once(&self) -> Output {
        let output = self.command(&["--once"]).output().unwrap();
        Secrets::of(&self.path("auditferry.toml"), &[]).are_not_in(&output.stderr, "the log");
        output
    }

    /// Ends with an error, and says this of it.
    pub(super) fn refused(&self, needles: &[&str]) {
        let output = self.once();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(needles.iter().all(|needle| said.contains(needle)), "{needles:?}: {said}");
        assert!(!said.contains("SharedAccessKey="), "{said}");
        self.fails_the_check(needles);
    }

    /// `check --connect` says the same.
    pub(super) fn fails_the_check(&self, needles: &[&str]) {
        let (said, ended) = checked(&self.path("auditferry.toml"));
        assert_eq!(ended, Some(1), "{said}");
        let connections = said.split("connections:\n").nth(1).unwrap();
        let line = connections.lines().find(|line| line.starts_with("  hub ")).unwrap();
        assert!(line.contains("FAILED") && needles.iter().all(|needle| line.contains(needle)), "{line}");
        assert!(!said.contains("SharedAccessKey="), "{said}");
    }

    pub(super) fn start(&self) -> Service {
        let log = File::create(self.path("log")).unwrap();
        // Not below `timeout`: a kill must hit the binary itself.
        let mut child = Command::new(program());
        child.args(["run", "--config"]).arg(self.path("auditferry.toml")).env_clear();
        let secrets = Secrets::of(&self.path("auditferry.toml"), &[]);
        let child = child.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Service { child, secrets, log: self.path("log"), state: self.path("state") }
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(super) fn events(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("events.ndjson")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(super) fn request_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            self.events().iter().map(|event| event["request_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }
}

/// A running auditferry; it is killed when dropped, and has left none of its secrets then.
pub(super) struct Service {
    child: Child,
    secrets: Secrets,
    log: PathBuf,
    state: PathBuf,
}

impl Service {
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub(super) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
        if !std::thread::panicking() {
            self.secrets.are_not_in(&std::fs::read(&self.log).unwrap_or_default(), "the log");
            self.secrets.are_in_no_file_of(&self.state);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "other processes move on in real time, and the test has nothing else to do"
)]
pub(super) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
