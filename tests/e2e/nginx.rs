//! An nginx in front of collectors, for each test its own.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::ferry::eventually;

pub(crate) struct Nginx {
    pub(crate) url: String,
    process: Child,
    directory: TempDir,
}

/// A request that nginx answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: String,
    /// Number of the connection it came on.
    pub(crate) connection: String,
    /// Who issued the client's certificate.
    pub(crate) issuer: String,
}

impl Nginx {
    /// Starts one that hands each request to the next of these backends (`host:port`) in turn, whoever sends it.
    /// `settings` may say `limit_req zone=scarce`: then all but two requests a second are refused.
    pub(crate) fn start(backends: &[&str], settings: &str) -> Self {
        Self::listening("http", backends, settings)
    }

    /// Starts one that speaks TLS with this certificate and key.
    pub(crate) fn start_tls(backends: &[&str], [certificate, key]: &[PathBuf; 2], settings: &str) -> Self {
        let (certificate, key) = (certificate.display(), key.display());
        let settings = format!("ssl_certificate {certificate};\nssl_certificate_key {key};\n{settings}");
        Self::listening("https", backends, &settings)
    }

    fn listening(scheme: &str, backends: &[&str], settings: &str) -> Self {
        let ssl = if scheme == "https" { " ssl" } else { "" };
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
             http {{\nlog_format short '$status|$connection|$ssl_client_i_dn';\naccess_log {here}/access.log short;\n\
             limit_req_zone $server_port zone=scarce:1m rate=2r/s;\n{temporary}upstream hec {{\n{servers}}}\n\
             server {{\nlisten 127.0.0.1:{port}{ssl};\n{settings}\nlocation / {{ proxy_pass http://hec; }}\n}}\n}}\n"
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
        Self { url: format!("{scheme}://127.0.0.1:{port}"), process, directory }
    }

    /// The requests it has answered so far.
    pub(crate) fn answered(&self) -> Vec<Answered> {
        let text = std::fs::read_to_string(self.directory.path().join("access.log")).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let answered = |line: &str| {
            let [status, connection, issuer] =
                line.splitn(3, '|').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
            Answered { status, connection, issuer }
        };
        whole.lines().map(answered).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
