//! The disk under the state and the dead letters fills up, breaks or becomes read-only beneath the running binary: the
//! flow stops and says so, goes on by itself when the disk is well again, and nothing is lost.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::support::collector::{Collector, Protocol};
use crate::support::disk::{BROKEN, Disk, FULL, READ_ONLY};
use crate::support::place::{ONCE, RUN, configured, deliver, lines, record, request_ids, write_config};
use crate::support::process::{Process, run, shell};

fn place() -> TempDir {
    let directory = configured(
        "state_dir = \"state\"\nserver.listen = \"127.0.0.1:0\"\n\
         [inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\npoll_interval = \"1s\"\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\nbatch.max_age = \"20ms\"\n",
    );
    deliver(directory.path(), "first", &[1]);
    directory
}

fn held(process: &Process) -> bool {
    process.get("/metrics").contains("auditferry_hold{input=\"in\",output=\"out\",reason=\"state\"} 1")
}

fn start(directory: &Path, disk: &Disk) -> Process {
    let mut process = Process::start_with(&RUN, directory, &disk.environment());
    process.until("the first record shipped", |_| !lines(&directory.join("out.ndjson")).is_empty());
    process.until("ready", |process| process.get("/readyz").starts_with("HTTP/1.1 200"));
    process
}

/// The records that were shipped, each with how often.
fn shipped(directory: &Path) -> Vec<String> {
    let mut ids: Vec<String> = lines(&directory.join("out.ndjson"))
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|event| event["request_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// Whatever the state's disk does, its pipeline holds and goes on with each record shipped once.
fn holds_for_the_state(number: u32, calls: &str, said: &str) {
    let (directory, disk) = (place(), Disk::new());
    let directory = directory.path();
    let mut process = start(directory, &disk);
    disk.fails(number, calls, "/state/state.db");
    deliver(directory, "second", &[2, 3]);
    process.until("held", |process| process.get("/readyz").starts_with("HTTP/1.1 503"));
    assert!(held(&process), "{}", process.get("/metrics"));
    let answer = process.get("/readyz");
    assert!(answer.contains("in/out: cannot write the state in") && answer.contains(said), "{answer}");
    deliver(directory, "third", &[4]);
    assert_eq!(process.stderr().matches("cannot write the state").count(), 1, "{}", process.stderr());
    disk.recovers();
    process.until("ready again", |process| process.get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(!held(&process));
    process.until_logged("the disk can be written again");
    process.until("all shipped", |_| shipped(directory).len() >= 4);
    process.signal("TERM");
    process.end().with(0);
    let again = run(&ONCE, directory).with(0);
    let expected = ["request-1", "request-2", "request-3", "request-4"];
    assert_eq!(shipped(directory), expected, "all of it, and each once\n{}", again.stderr);
    let verified = run(&["state", "verify", "--config", "a.toml"], directory).with(0).stdout;
    assert!(verified.contains("it is sound"), "{verified}");
}

#[test]
fn a_full_disk_under_the_state_is_waited_for() {
    holds_for_the_state(FULL, "all", "free space on its disk");
}

#[test]
fn a_broken_disk_under_the_state_is_waited_for() {
    holds_for_the_state(BROKEN, "write", "look at its disk");
}

#[test]
fn a_disk_that_cannot_sync_the_state_is_waited_for() {
    holds_for_the_state(BROKEN, "sync", "look at its disk");
}

#[test]
fn a_file_system_that_becomes_read_only_under_the_state_is_waited_for() {
    holds_for_the_state(READ_ONLY, "all", "state.db");
}

/// A disk that takes no dead letters holds the pipeline, and a process that is killed meanwhile loses none.
fn holds_for_dead_letters(number: u32, calls: &str, killed: bool) {
    let (directory, disk) = (place(), Disk::new());
    let directory = directory.path();
    let mut process = start(directory, &disk);
    disk.fails(number, calls, "/dead-letters/");
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let object = directory.join(format!("bucket/workspaceId=7/date={date}/auditlogs_bad.json"));
    std::fs::write(object, format!("{}\n{{\"cut\n{}\n", record(2), record(3))).unwrap();
    process.until("held", |process| process.get("/readyz").contains("cannot write dead letters"));
    assert!(held(&process));
    deliver(directory, "third", &[4]);
    if killed {
        process.kill();
        disk.recovers();
    } else {
        disk.recovers();
        process.until("ready again", |process| process.get("/readyz").starts_with("HTTP/1.1 200"));
        process.until("all shipped", |_| shipped(directory).len() >= 4);
        process.signal("TERM");
        process.end().with(0);
    }
    run(&ONCE, directory);
    let mut all = shipped(directory);
    all.dedup();
    assert_eq!(all, ["request-1", "request-2", "request-3", "request-4"]);
    let letters = run(&["dead-letters", "show", "--config", "a.toml"], directory).with(0).stdout;
    assert_eq!((letters.lines().count(), letters.contains("{\\\"cut")), (1, true), "{letters}");
}

#[test]
fn a_full_disk_under_the_dead_letters_is_waited_for() {
    holds_for_dead_letters(FULL, "all", false);
}

#[test]
fn a_process_that_is_killed_while_its_dead_letters_cannot_be_written_loses_none() {
    holds_for_dead_letters(BROKEN, "sync", true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_does_not_hide_that_dead_letters_cannot_be_written() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.set_poison("request-2");
    let (directory, disk) = (place(), Disk::new());
    let directory = directory.path();
    let text = std::fs::read_to_string(directory.join("a.toml")).unwrap();
    let output = format!("type = \"splunk_hec\"\nurl = \"{}\"\ntoken = \"hunter2\"\n", collector.url());
    write_config(directory, &text.replace("type = \"file\"\npath = \"out.ndjson\"\n", &output));
    let mut process = Process::start_with(&RUN, directory, &disk.environment());
    process.until("the first one taken", |_| collector.ids().len() == 1);
    disk.fails(FULL, "all", "/dead-letters/");
    deliver(directory, "second", &[2]);
    process.until("held", held);
    deliver(directory, "third", &[4]);
    let committed = |process: &Process| {
        process.get("/metrics").contains("auditferry_commits_total{input=\"in\",output=\"out\"} 2")
    };
    process.until("the third one committed", committed);
    assert!(held(&process), "{}", process.get("/readyz"));
    disk.recovers();
    process.until("going on", |process| !held(process));
    process.signal("TERM");
    process.end().with(0);
    assert_eq!(request_ids(&collector.events()), ["request-1", "request-4"]);
}

/// Whatever the disk of a file does, its pipeline holds and goes on with each record written once.
fn holds_for_the_file(number: u32, calls: &str, advice: &str) {
    let (directory, disk) = (place(), Disk::new());
    let directory = directory.path();
    let mut process = start(directory, &disk);
    disk.fails(number, calls, "/out.ndjson");
    deliver(directory, "second", &[2, 3, 4, 5]);
    process.until("held", |process| process.get("/readyz").contains(advice));
    disk.recovers();
    process.until("ready again", |process| process.get("/readyz").starts_with("HTTP/1.1 200"));
    process.until("all shipped", |_| shipped(directory).len() >= 5);
    process.signal("TERM");
    process.end().with(0);
    let expected: Vec<String> = (1..6).map(|number| format!("request-{number}")).collect();
    assert_eq!(shipped(directory), expected);
}

#[test]
fn a_full_disk_under_the_file_is_waited_for() {
    holds_for_the_file(FULL, "write", "free disk space");
}

#[test]
fn a_disk_that_cannot_sync_the_file_is_waited_for() {
    holds_for_the_file(BROKEN, "sync", "check `path`");
}

#[test]
fn a_file_whose_name_may_not_outlive_a_crash_counts_as_nothing_delivered() {
    let (directory, disk) = (place(), Disk::new());
    let directory = directory.path();
    let text = std::fs::read_to_string(directory.join("a.toml")).unwrap();
    write_config(directory, &text.replace("out.ndjson", "deep/er/out.ndjson"));
    let once = || Process::start_with(&ONCE, directory, &disk.environment()).end();
    // The directory that was made for it is a name in another one, which is to be synced as well.
    for unsynced in ["/deep$", "/er$", "/er$"] {
        disk.fails(BROKEN, "sync", unsynced);
        let ended = once().with(2);
        assert!(ended.stderr.contains("cannot append to"), "{unsynced}: {}", ended.stderr);
    }
    disk.recovers();
    once().with(0);
    let ids: Vec<_> = lines(&directory.join("deep/er/out.ndjson"));
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[test]
fn a_start_without_room_for_a_state_says_what_to_do() {
    let (directory, disk) = (place(), Disk::new());
    disk.fails(FULL, "all", "/state/");
    let ended = Process::start_with(&RUN, directory.path(), &disk.environment()).end().with(2);
    assert!(ended.stderr.contains("free space on its disk"), "{}", ended.stderr);
}

#[test]
fn all_that_is_kept_is_for_its_owner_only() {
    let directory = place();
    let bad = directory.path().join("bucket/workspaceId=7/date=2026-01-05");
    std::fs::create_dir_all(&bad).unwrap();
    std::fs::write(bad.join("auditlogs_bad.json"), "{\"cut\n").unwrap();
    // Whatever the umask lets through.
    shell("umask 0; \"$BINARY\" run --once --config a.toml", directory.path());
    let mut open = vec![directory.path().join("state")];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        seen += 1;
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen >= 6, "state, lock, key, database, dead letters and their directory: {seen}");
}
