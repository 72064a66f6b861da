//! A forward proxy, for each test its own.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::ferry::eventually;

/// Who may use it.
pub(crate) const LOGIN: &str = "ferry:hunter2";

pub(crate) struct Tinyproxy {
    /// Host and port.
    pub(crate) address: String,
    directory: TempDir,
    process: Child,
}

impl Tinyproxy {
    /// Starts one that wants [`LOGIN`].
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "Listen 127.0.0.1\nPort {port}\nTimeout 60\nMaxClients 50\nLogLevel Connect\nLogFile \"{}\"\nBasicAuth {}\n",
            directory.path().join("log").display(),
            LOGIN.replace(':', " ")
        );
        std::fs::write(directory.path().join("tinyproxy.conf"), text).unwrap();
        let process = launch(&directory);
        let proxy = Self { address: format!("127.0.0.1:{port}"), directory, process };
        proxy.listens();
        proxy
    }

    fn listens(&self) {
        eventually("the proxy listens", || TcpStream::connect(&self.address).is_ok());
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again at the same address.
    pub(crate) fn start_again(&mut self) {
        self.process = launch(&self.directory);
        self.listens();
    }

    /// How many connections it has made so far.
    pub(crate) fn connections(&self) -> usize {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.matches("Established connection to").count()
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(directory: &TempDir) -> Child {
    let program = std::env::var_os("AUDITFERRY_E2E_TINYPROXY").unwrap_or_else(|| "tinyproxy".into());
    Command::new(&program)
        .args(["-d", "-c"])
        .arg(directory.path().join("tinyproxy.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot start {program:?}: {error}; apt-get install tinyproxy-bin, or set AUDITFERRY_E2E_TINYPROXY"
            )
        })
}
