//! A real Elasticsearch, with users and roles. The zip that is published for tests like these has security, but no data
//! streams, index templates' components or API keys: those are OpenSearch's to show, or nobody's here.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::ferry::{Ferry, Running, content, eventually, put, put_text, record};
use crate::opensearch::{NOBODY, give, link};

/// bcrypt of these passwords.
const HASHES: [(&str, &str); 2] = [
    ("the first password", "$2a$10$8AAXIMlzdkoPKYkeBUejFucw4PoHeck.iMB6605V5NjplQmTO7lWK"),
    ("the second password", "$2a$10$8AAXIMlzdkoPKYkeBUejFufpuGasupOcQT3hDOzeb/.ZWbKHOQ3zu"),
];

struct Elasticsearch {
    url: String,
    directory: TempDir,
    process: Child,
    client: reqwest::Client,
    runtime: Runtime,
}

impl Elasticsearch {
    /// Starts one in which `admin` may do all, and `ferry` what `docs/outputs.md` asks for, both with the first password.
    fn start() -> Self {
        let home = std::env::var_os("AUDITFERRY_E2E_ELASTICSEARCH")
            .expect("AUDITFERRY_E2E_ELASTICSEARCH names no directory of an unpacked Elasticsearch");
        let directory = tempfile::tempdir().unwrap();
        for part in ["bin", "lib", "modules", "config"] {
            link(&Path::new(&home).join(part), &directory.path().join(part));
        }
        for part in ["data", "logs", "tmp", "plugins"] {
            std::fs::create_dir(directory.path().join(part)).unwrap();
        }
        let role = "audit_writer:\n  indices:\n  - names: ['audit*']\n    privileges: [create_doc, auto_configure]\n";
        write_config(&directory, "roles.yml", role);
        write_config(&directory, "users_roles", "superuser:admin\naudit_writer:ferry\n");
        write_config(&directory, "users", &users(HASHES[0].1));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (process, url) = launch(&directory);
        Self { url, directory, process, client, runtime }
    }

    /// Gives `ferry` this password; the server looks into the file every few seconds.
    fn change_password(&self, hash: &str) {
        write_config(&self.directory, "users", &users(hash));
    }

    /// Makes a request as `admin`.
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let mut call = self.client.request(method, format!("{}{path}", self.url));
        call = call.basic_auth("admin", Some(HASHES[0].0));
        if let Some(body) = body {
            call = call.header("content-type", "application/json").body(body.to_string());
        }
        self.runtime.block_on(async {
            let answer = call.send().await.unwrap();
            let (status, body) = (answer.status(), answer.bytes().await.unwrap());
            assert!(status.is_success(), "{path}: {status} {body:?}");
            serde_json::from_slice(&body).unwrap()
        })
    }

    fn count(&self, index: &str) -> u64 {
        self.call(Method::POST, &format!("/{index}/_refresh"), None);
        self.call(Method::GET, &format!("/{index}/_count"), None)["count"].as_u64().unwrap()
    }
}

impl Drop for Elasticsearch {
    fn drop(&mut self) {
        // The server ends with what started it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn users(hash: &str) -> String {
    format!("admin:{}\nferry:{hash}\n", HASHES[0].1)
}

/// Replaces a file of the configuration: the one there may be the cache's own.
fn write_config(directory: &TempDir, name: &str, text: &str) {
    let path = directory.path().join("config").join(name);
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(partial, path).unwrap();
}

fn java_home() -> PathBuf {
    if let Some(home) = std::env::var_os("JAVA_HOME") {
        return home.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let java =
        std::env::split_paths(&path).map(|directory| directory.join("java")).find(|java| java.exists());
    let java = java.expect("there is no java in PATH").canonicalize().unwrap();
    java.ancestors().nth(2).unwrap().to_owned()
}

fn launch(directory: &TempDir) -> (Child, String) {
    let here = directory.path();
    let mut command = Command::new("bash");
    command
        .arg(here.join("bin/elasticsearch"))
        .args(["-Ediscovery.type=single-node", "-Enetwork.host=127.0.0.1", "-Etransport.port=0"])
        .args(["-Ehttp.port=0", "-Expack.security.enabled=true", "-Expack.security.http.ssl.enabled=false"])
        .args(["-Expack.security.transport.ssl.enabled=false", "-Eresource.reload.interval.high=1s"])
        // How full the disk of this machine is must not matter.
        .arg("-Ecluster.routing.allocation.disk.threshold_enabled=false")
        .current_dir(here)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("ES_JAVA_HOME", java_home())
        .env("ES_TMPDIR", here.join("tmp"))
        .env("CLI_JAVA_OPTS", "-Xmx64m -XX:TieredStopAtLevel=1")
        .env("ES_JAVA_OPTS", "-Xms256m -Xmx512m -XX:-UseG1GC -XX:+UseSerialGC -XX:TieredStopAtLevel=1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        give(here);
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut process = command.spawn().unwrap_or_else(|error| panic!("cannot start Elasticsearch: {error}"));
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let (mut address, mut said) = (None, String::new());
    loop {
        let line =
            lines.next().unwrap_or_else(|| panic!("Elasticsearch ended before it listened\n{said}")).unwrap();
        if line.contains("HttpServerTransport") {
            address = line
                .split_once("publish_address {")
                .map(|(_, rest)| rest.split('}').next().unwrap().to_owned());
        }
        if line.contains("] started {") {
            break;
        }
        said.push_str(&line);
        said.push('\n');
    }
    // Its log must be read on, or it blocks when the pipe is full.
    std::thread::spawn(move || lines.for_each(drop));
    (process, format!("http://{}", address.expect("Elasticsearch said where it listens")))
}

/// Ships a directory to an index as `ferry`, whose password is in a file.
fn ferry(bucket: &TempDir, server: &Elasticsearch, index: &str, password: &Path) -> Ferry {
    let output = format!(
        "[outputs.elastic]\ntype = \"elastic\"\nurl = \"{}\"\nproxy = \"none\"\nindex = \"{index}\"\n\
         username = \"ferry\"\npassword = {{ file = \"{}\" }}\nbatch.max_age = \"50ms\"\n",
        server.url,
        password.display()
    );
    let root = bucket.path().join("logs");
    Ferry::configured(&root.display().to_string(), "poll_interval = \"1s\"", &output)
}

fn delivers(running: &Running, name: &str, count: usize) {
    eventually(&format!("{count} {name}"), || running.metric(name) == count);
}

#[test]
fn a_password_may_be_wrong_and_rotated_and_every_event_is_there_once_and_the_bad_one_a_dead_letter() {
    let server = Elasticsearch::start();
    let mapping = json!({"properties": {"request_params": {"properties": {"port": {"type": "integer"}}}}});
    server.call(Method::PUT, "/audit", Some(&json!({ "mappings": mapping })));
    server.call(Method::GET, "/_cluster/health/audit?wait_for_status=yellow&timeout=60s", None);
    let bucket = tempfile::tempdir().unwrap();
    let password = bucket.path().join("password");
    std::fs::write(&password, "a wrong password").unwrap();
    let bad = record(100).replace(r#""requestParams":{"#, r#""requestParams":{"port":"ssh","#);
    let numbers = |range: std::ops::Range<usize>| content(&range.collect::<Vec<_>>());
    put_text(bucket.path(), "a", &(numbers(0..50) + &bad + "\n" + &numbers(50..100)));
    let shipping = ferry(&bucket, &server, "audit", &password);
    let running = shipping.start();
    eventually("it says what is wrong", || running.log().contains("unable to authenticate user [ferry]"));
    assert_eq!((server.count("audit"), running.metric("dead_letters_total")), (0, 0));
    std::fs::write(&password, HASHES[0].0).unwrap();
    delivers(&running, "events_delivered_total", 100);
    delivers(&running, "dead_letters_total", 1);

    // Rotated here first: the server still knows the old one only, and nothing waits for that.
    std::fs::write(&password, HASHES[1].0).unwrap();
    put(bucket.path(), "b", 200..300);
    delivers(&running, "events_delivered_total", 200);
    server.change_password(HASHES[1].1);
    for (number, object) in ["c", "d", "e"].iter().enumerate() {
        put(bucket.path(), object, 300 + number * 10..310 + number * 10);
        delivers(&running, "events_delivered_total", 210 + number * 10);
    }
    assert_eq!((server.count("audit"), running.metric("dead_letters_total")), (230, 1));
    assert!(!running.log().contains("the first") && !running.log().contains("a wrong"), "{}", running.log());
    running.stop();

    // Another one that knows nothing of the first finds everything there.
    std::fs::write(&password, HASHES[1].0).unwrap();
    let again = ferry(&bucket, &server, "audit", &password);
    let running = again.start();
    delivers(&running, "events_duplicate_total", 230);
    assert_eq!((server.count("audit"), running.metric("events_delivered_total")), (230, 0));
    running.stop();

    // An index that the role does not name.
    let elsewhere = ferry(&bucket, &server, "elsewhere", &password);
    let running = elsewhere.start();
    eventually("it says what is missing", || running.log().contains("right to create documents in `index`"));
    assert_eq!((running.metric("events_delivered_total"), running.metric("dead_letters_total")), (0, 0));
}
