//! An nginx in front of collectors, for each test its own.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::ferry::eventually;

pub(crate) struct Nginx {
    pub(crate) url: String,
    process: Child,
    _directory: TempDir,
}

impl Nginx {
    /// Starts one that hands each request to the next of these backends (`host:port`) in turn, whoever sends it.
    pub(crate) fn start(backends: &[&str], settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().display();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let servers: String = backends.iter().map(|backend| format!("server {backend};\n")).collect();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
            .collect();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/error.log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}upstream hec {{\n{servers}}}\n\
             server {{\nlisten 127.0.0.1:{port};\n{settings}\nlocation / {{ proxy_pass http://hec; }}\n}}\n}}\n"
        );
        let config = directory.path().join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let program = std::env::var_os("AUDITFERRY_E2E_NGINX").unwrap_or_else(|| "nginx".into());
        let process = Command::new(&program)
            .args(["-e", "stderr", "-p"])
            .arg(directory.path())
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot start {program:?}: {error}; apt-get install nginx, or set AUDITFERRY_E2E_NGINX"
                )
            });
        eventually("nginx listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { url: format!("http://127.0.0.1:{port}"), process, _directory: directory }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
