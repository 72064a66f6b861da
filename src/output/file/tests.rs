use std::fs::File;
use std::path::Path;

use serde_json::json;

use super::*;

fn output(path: &Path) -> FileOutput {
    FileOutput::new(parse(json!({ "path": path })).unwrap()).unwrap()
}

fn request(body: &'static str) -> Request {
    Request { body: body.into(), encoding: Encoding::None, events: 1, uncompressed_bytes: body.len() }
}

const ACCEPTED: Verdict = Verdict::Accepted { slow_down: false };

fn complaint(verdict: Verdict) -> String {
    match verdict {
        Verdict::Hold(alarm) if alarm.reason == HoldReason::Local => alarm.message,
        other => panic!("{other:?} is no local hold"),
    }
}

#[tokio::test]
async fn batches_are_appended_to_a_file_that_is_created_with_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er/events.ndjson");
    let output = output(&path);
    assert!(!path.parent().unwrap().exists());
    assert_eq!(output.send(&request("{\"a\":1}\n")).await, ACCEPTED);
    assert_eq!(output.send(&request("{\"a\":2}\n{\"a\":3}\n")).await, ACCEPTED);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n");
}

#[tokio::test]
async fn a_line_torn_by_a_crash_is_cut_off_before_the_next_batch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let long = format!("{{\"a\":\"{}", "x".repeat(150_000));
    let lines = "{\"a\":1}\n".repeat(20_000);
    for (torn, kept) in [
        (format!("{lines}{long}"), lines.as_str()),
        ("{\"a\":1}\n{\"a\":".to_owned(), "{\"a\":1}\n"),
        (format!("{{\"a\":1}}\n{long}"), "{\"a\":1}\n"),
        (long, ""),
        ("{\"a\":1}\n\0\0\0".to_owned(), "{\"a\":1}\n"),
        ("{\"a\":1}\n".to_owned(), "{\"a\":1}\n"),
    ] {
        std::fs::write(&path, torn).unwrap();
        assert_eq!(output(&path).send(&request("{\"b\":2}\n")).await, ACCEPTED);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{kept}{{\"b\":2}}\n"));
    }
}

#[tokio::test]
async fn outputs_that_share_a_file_wait_for_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let (output, request) = (output(&path), request("{\"a\":1}\n"));
    assert_eq!(output.send(&request).await, ACCEPTED);
    let other = File::open(&path).unwrap();
    other.lock().unwrap();
    let mut send = output.send(&request);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut send).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n");
    other.unlock().unwrap();
    assert_eq!(send.await, ACCEPTED);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_deleted_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let output = output(&path);
    assert_eq!(output.send(&request("{\"a\":1}\n")).await, ACCEPTED);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.send(&request("{\"a\":2}\n")).await, ACCEPTED);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":2}\n");
}

#[tokio::test]
async fn a_line_torn_by_another_process_is_cut_off_before_the_next_batch() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let output = output(&path);
    assert_eq!(output.send(&request("{\"a\":1}\n")).await, ACCEPTED);
    // It died in the middle of its batch.
    let mut other = OpenOptions::new().append(true).open(&path).unwrap();
    other.write_all(b"{\"b\":1}\n{\"b\":").unwrap();
    assert_eq!(output.send(&request("{\"a\":2}\n")).await, ACCEPTED);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":1}\n{\"a\":2}\n");
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_takes_nothing_until_somebody_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (output, request) = (output(&path), request("{\"a\":1}\n"));
    let mut send = output.send(&request);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut send).await.is_err());
    assert!(matches!(output.probe().await, Probe::Ready(seen) if seen.contains("pipe")), "nor does it wait");
    let reader = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
    assert_eq!(send.await, ACCEPTED);
    output.reopen().await;
    assert_eq!(reader.await.unwrap().unwrap(), "{\"a\":1}\n");
}

#[tokio::test]
async fn a_file_of_somebody_else_is_not_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("passwd");
    std::fs::write(&path, "root:x:0:0").unwrap();
    let message = complaint(output(&path).send(&request("{}\n")).await);
    assert!(message.contains("not ours"), "{message}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "root:x:0:0");
}

#[tokio::test]
async fn after_reopen_a_rotated_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (path, rotated) = (directory.path().join("events"), directory.path().join("events.1"));
    let output = output(&path);
    assert_eq!(output.send(&request("{\"a\":1}\n")).await, ACCEPTED);
    std::fs::rename(&path, &rotated).unwrap();
    output.reopen().await;
    assert_eq!(output.send(&request("{\"a\":2}\n")).await, ACCEPTED);
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "{\"a\":1}\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":2}\n");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_holds_and_says_what_to_do() {
    let message = complaint(output(Path::new("/dev/full")).send(&request("{}\n")).await);
    assert!(message.contains("/dev/full") && message.contains("free disk space"), "{message}");
}

#[tokio::test]
async fn a_path_that_cannot_be_opened_holds() {
    let message = complaint(output(Path::new("/dev/null/events.ndjson")).send(&request("{}\n")).await);
    assert!(message.contains("cannot append to"), "{message}");
}

#[tokio::test]
async fn a_device_is_written_to_without_sync_and_repair() {
    assert_eq!(output(Path::new("/dev/null")).send(&request("{}\n")).await, ACCEPTED);
}

#[test]
fn a_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = FileOutput::new(Config { path: directory.path().to_owned() }).err().unwrap();
    assert!(refused.message.ends_with("is a directory; write the path of a file"), "{refused}");
}

#[test]
fn an_empty_path_is_refused() {
    let error = FileOutput::new(parse(json!({"path": ""})).unwrap()).err().unwrap();
    assert!(error.to_string().starts_with("path: "), "{error}");
}
