//! The page in a real browser. Its pictures are left in `e2e-page` of the target directory's `tmp`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::ferry::{Ferry, record};
use crate::hec::{Collector, Protocol};

fn put(bucket: &Path, name: &str, content: &str) {
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let folder = bucket.join(format!("workspaceId=1/date={today}"));
    std::fs::create_dir_all(&folder).unwrap();
    let partial = bucket.join("partial");
    std::fs::write(&partial, content).unwrap();
    std::fs::rename(partial, folder.join(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_follows_a_collector_down_and_up_again_without_an_error() {
    let hec = Collector::start(Protocol::Hec).await;
    let place = tempfile::tempdir().unwrap();
    let bucket = place.path().join("bucket");
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    put(&bucket, "a.json", &(record(1) + "\n" + &record(2) + "\nno json\n"));
    let ferry = Ferry::whole(&format!(
        r#"
        state_dir = "{here}/state"
        [server]
        listen = "{address}"
        recent_events = 5
        [inputs.audit]
        type = "bucket"
        url = "file://{here}/bucket"
        poll_interval = "1s"
        [outputs.splunk]
        type = "splunk_hec"
        url = "{}"
        token = "hunter2"
        "#,
        hec.url(),
        here = place.path().display()
    ));
    let running = ferry.start();
    hec.keeps(2).await;
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-page");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut browser = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/page/look.cjs"))
        .arg(format!("http://{address}/"))
        .arg(&pictures)
        .env("NODE_PATH", std::env::var_os("AUDITFERRY_E2E_PLAYWRIGHT").unwrap_or_default())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot start node: {error}; install it, Chromium, and playwright-core from npm")
        });
    let mut said = Vec::new();
    for line in BufReader::new(browser.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.as_str() {
            line if line.starts_with("width ") => {
                hec.set_down(Some(503));
                put(&bucket, "b.json", &(record(3) + "\n"));
            }
            "trying again" => hec.set_down(None),
            _ => {}
        }
        said.push(line);
    }
    assert!(browser.wait().unwrap().success(), "{said:?}");
    assert_eq!(said, ["running", "focus scroll 100", "width 400", "trying again", "running", "errors []"]);
    running.stop();
}
