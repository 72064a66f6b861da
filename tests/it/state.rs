//! `auditferry state`: a state that is lost, damaged or old, and what a user does about it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tempfile::TempDir;

use crate::support::collector::{Collector, Protocol};
use crate::support::place::{ONCE, RUN, deliver, growing, lines, request_ids, write_config};
use crate::support::process::{Ended, Process, repository, run};

fn state(arguments: &[&str], directory: &Path) -> Ended {
    run(&[&["state"], arguments, &["--config", "a.toml"]].concat(), directory)
}

fn to_file() -> TempDir {
    growing("type = \"file\"\npath = \"out.ndjson\"")
}

/// Puts something else into the middle of the database.
fn damage(directory: &Path) {
    let path = directory.join("state/state.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..8192].fill(0x55);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_verified_is_told() {
    let directory = to_file();
    let none = state(&["verify"], directory.path()).with(0).stdout;
    assert!(none.contains("there is no state in"), "{none}");
    run(&ONCE, directory.path()).with(0);
    let sound = state(&["verify"], directory.path()).with(0).stdout;
    assert!(
        sound.contains("version 2") && sound.contains("in/out") && sound.contains(" 1 positions"),
        "{sound}"
    );
    damage(directory.path());
    let damaged = state(&["verify"], directory.path()).with(1).stdout;
    assert!(
        damaged.contains("damaged: ") && damaged.contains("auditferry state rebuild --until"),
        "{damaged}"
    );
}

#[test]
fn a_state_in_use_can_be_verified_and_not_rebuilt_or_shared() {
    let directory = to_file();
    let mut service = Process::start(&RUN, directory.path());
    service.until("shipped", |_| lines(&directory.path().join("out.ndjson")).len() == 1);
    state(&["verify"], directory.path()).with(0);
    for ended in
        [run(&ONCE, directory.path()), state(&["rebuild", "--replace", "--until", "now"], directory.path())]
    {
        let ended = ended.with(2);
        assert!(ended.stderr.contains("is in use by another auditferry"), "{}", ended.stderr);
    }
    service.signal("TERM");
    service.end().with(0);
}

#[test]
fn a_damaged_state_stops_the_start_with_one_sentence_and_is_rebuilt_without_sending_anything() {
    let directory = to_file();
    deliver(directory.path(), "second", &[2, 3]);
    run(&ONCE, directory.path()).with(0);
    damage(directory.path());
    let refused = run(&ONCE, directory.path()).with(2);
    let line = refused.stderr.trim_end();
    assert!(line.starts_with("auditferry: the state in ") && line.contains("is damaged"), "{line}");
    assert!(line.contains("auditferry state rebuild") && !line.contains('\n'), "{line}");

    let rebuilt = state(&["rebuild", "--until", "now"], directory.path()).with(0).stdout;
    assert!(rebuilt.contains("in/out: 2 objects, 3 lines taken for delivered"), "{rebuilt}");
    assert!(rebuilt.contains("the old state is kept as"), "{rebuilt}");
    run(&ONCE, directory.path()).with(0);
    assert_eq!(lines(&directory.path().join("out.ndjson")).len(), 3, "nothing was sent again");
    // What is added to an object of before, and a new object, are shipped and nothing else.
    deliver(directory.path(), "second", &[2, 9, 3]);
    deliver(directory.path(), "third", &[4]);
    run(&ONCE, directory.path()).with(0);
    let events = lines(&directory.path().join("out.ndjson"));
    let added: Vec<_> = events[3..].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut added = request_ids(&added);
    added.sort();
    assert_eq!(added, ["request-4", "request-9"]);
}

#[test]
fn what_came_after_the_time_of_a_rebuild_is_shipped() {
    let directory = to_file();
    let before = jiff::Timestamp::now();
    let file = |name: &str| {
        let date = before.strftime("%Y-%m-%d");
        std::fs::File::open(
            directory.path().join(format!("bucket/workspaceId=7/date={date}/auditlogs_{name}.json")),
        )
        .unwrap()
    };
    deliver(directory.path(), "late", &[5]);
    let hour = std::time::Duration::from_secs(3600);
    file("first").set_modified((before - hour).into()).unwrap();
    let until = (before - hour / 2).to_string();
    state(&["rebuild", "--until", &until], directory.path()).with(0);
    run(&ONCE, directory.path()).with(0);
    let events = lines(&directory.path().join("out.ndjson"));
    let events: Vec<_> = events.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(request_ids(&events), ["request-5"]);
}

#[test]
fn a_sound_state_is_not_given_up_by_mistake() {
    let directory = to_file();
    run(&ONCE, directory.path()).with(0);
    let refused = state(&["rebuild", "--until", "now"], directory.path()).with(2).stderr;
    assert!(refused.contains("is sound; --replace"), "{refused}");
    let empty = to_file();
    std::fs::remove_dir_all(empty.path().join("bucket")).unwrap();
    std::fs::create_dir(empty.path().join("bucket")).unwrap();
    run(&ONCE, empty.path()).with(0);
    let refused = state(&["rebuild", "--until", "now"], empty.path()).with(2).stderr;
    assert!(refused.contains("is sound; --replace"), "also one that knows of nothing yet: {refused}");
    state(&["rebuild", "--until", "now", "--replace"], directory.path()).with(0);
    let unsaid = state(&["rebuild"], directory.path()).with(2).stderr;
    assert!(unsaid.contains("--until"), "what counts as delivered is for the user to say: {unsaid}");
    let wrong = state(&["rebuild", "--until", "yesterday"], directory.path()).with(2).stderr;
    assert!(wrong.contains("2026-01-31T12:00:00Z"), "{wrong}");
}

#[test]
fn a_bucket_that_cannot_be_read_leaves_the_state_as_it_is() {
    let directory = to_file();
    run(&ONCE, directory.path()).with(0);
    let state_db = directory.path().join("state/state.db");
    let before = std::fs::read(&state_db).unwrap();
    std::fs::rename(directory.path().join("bucket"), directory.path().join("elsewhere")).unwrap();
    std::fs::write(directory.path().join("bucket"), "a file").unwrap();
    let failed = state(&["rebuild", "--until", "now", "--replace"], directory.path()).with(2);
    assert_eq!(failed.stdout, "", "nothing came of it");
    assert!(std::fs::read(state_db).unwrap() == before);
    assert!(!directory.path().join("state/rebuilding").exists());
}

/// Names of what lies in the state directory and has to do with a database.
fn databases(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join("state")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| name.starts_with("state.db") || name == "rebuilding").collect();
    names.sort();
    names
}

#[test]
fn every_rebuild_leaves_one_file_of_what_was_before_it() {
    let directory = to_file();
    let mut service = Process::start(&RUN, directory.path());
    service.until("shipped", |_| lines(&directory.path().join("out.ndjson")).len() == 1);
    service
        .until("committed", |_| state(&["verify"], directory.path()).with(0).stdout.contains(" 1 positions"));
    service.kill();
    assert!(databases(directory.path()).contains(&"state.db-wal".to_owned()));
    // Within one second, most likely: the names are made of it.
    for _ in 0..4 {
        state(&["rebuild", "--until", "now", "--replace"], directory.path()).with(0);
    }
    let names = databases(directory.path());
    assert_eq!(names.len(), 5, "{names:?}");
    let oldest = names.iter().find(|name| name.contains(".before-")).unwrap();
    std::fs::create_dir(directory.path().join("old")).unwrap();
    std::fs::copy(directory.path().join("state").join(oldest), directory.path().join("old/state.db"))
        .unwrap();
    let kept = run(&["state", "verify", "--state-dir", "old"], directory.path()).with(0).stdout;
    assert!(kept.contains(" 1 positions"), "with what lay in its log: {kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_lost_costs_a_collector_of_ids_nothing_but_time() {
    let collector = Collector::start(Protocol::Bulk).await;
    let url = collector.url();
    let directory = growing(&format!(
        "type = \"elastic\"\nurl = \"{url}\"\nindex = \"audit\"\napi_key = {{ env = \"TOKEN\" }}"
    ));
    deliver(directory.path(), "second", &[2, 3, 3]);
    run(&ONCE, directory.path()).with(0);
    let mut first = collector.ids();
    std::fs::remove_file(directory.path().join("state/state.db")).unwrap();
    run(&ONCE, directory.path()).with(0);
    let mut all = collector.ids();
    first.sort();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), all), (4, first));
}

#[test]
fn the_state_of_the_first_release_goes_on_and_nothing_is_sent_again() {
    let directory = to_file();
    std::fs::remove_dir_all(directory.path().join("bucket")).unwrap();
    let line = |id: &str| {
        format!(
            "{{\"version\":\"2.0\",\"timestamp\":1767609296007,\"orgId\":\"7\",\"serviceName\":\"accounts\",\
             \"actionName\":\"login\",\"requestId\":\"{id}\"}}\n"
        )
    };
    for (object, ids) in [
        ("workspaceId=7/date=2026-01-05/auditlogs_1.json", ["a1", "a2", "a2"].as_slice()),
        ("workspaceId=7/date=2026-01-05/auditlogs_2.json", &["b1"]),
        ("workspaceId=8/date=2026-01-06/auditlogs_1.json", &["c1", "new", "c2"]),
    ] {
        let path = directory.path().join("bucket").join(object);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, ids.iter().map(|id| line(id)).collect::<String>()).unwrap();
    }
    std::fs::create_dir(directory.path().join("state")).unwrap();
    std::fs::copy(repository("tests/fixtures/state_version_1.db"), directory.path().join("state/state.db"))
        .unwrap();
    write_config(
        directory.path(),
        "state_dir = \"state\"\nserver.listen = \"none\"\n[inputs.audit]\ntype = \"bucket\"\nurl = \"bucket\"\n\
         [outputs.out]\ntype = \"file\"\npath = \"out.ndjson\"\n",
    );
    run(&ONCE, directory.path()).with(0);
    let events = lines(&directory.path().join("out.ndjson"));
    let events: Vec<_> = events.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(request_ids(&events), ["new"]);
    let verified = state(&["verify"], directory.path()).with(0).stdout;
    assert!(verified.contains("version 2"), "{verified}");
}

/// Everything in a directory whose owner and group are not these.
fn of_others(directory: &Path, owner: (u32, u32), found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if (metadata.uid(), metadata.gid()) != owner {
            found.push(entry.path());
        }
        if metadata.is_dir() {
            of_others(&entry.path(), owner, found);
        }
    }
}

#[test]
fn what_root_does_by_hand_leaves_the_state_to_whom_its_directory_belongs() {
    let directory = to_file();
    let state_dir = directory.path().join("state");
    std::fs::create_dir(&state_dir).unwrap();
    // Where this is not root there is nothing to hand over, and all of it is our own anyway.
    if state_dir.metadata().unwrap().uid() == 0 {
        std::os::unix::fs::chown(&state_dir, Some(65534), Some(65533)).unwrap();
    }
    let owner = state_dir.metadata().map(|it| (it.uid(), it.gid())).unwrap();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let bad = directory.path().join(format!("bucket/workspaceId=7/date={date}/auditlogs_bad.json"));
    std::fs::write(bad, "no json\n").unwrap();
    let none_is_anothers = |after: &str| {
        let mut others = Vec::new();
        of_others(&state_dir, owner, &mut others);
        assert!(others.is_empty(), "after {after}: {others:?}");
    };
    run(&ONCE, directory.path()).with(1);
    assert!(
        state_dir.join("dead-letters/in.out.ndjson").exists() && state_dir.join("redaction.key").exists()
    );
    none_is_anothers("run --once");
    run(&["dead-letters", "replay", "--config", "a.toml"], directory.path()).with(1);
    none_is_anothers("dead-letters replay");
    state(&["rebuild", "--until", "now", "--replace"], directory.path()).with(1);
    none_is_anothers("state rebuild");
}

#[test]
fn what_no_input_looks_at_any_more_is_forgotten_and_nothing_is_sent_again() {
    let directory = to_file();
    let old = directory.path().join("bucket/workspaceId=7/date=2020-02-02");
    std::fs::create_dir_all(&old).unwrap();
    let today = directory.path().join("bucket/workspaceId=7");
    let mut folders = std::fs::read_dir(today).unwrap().map(|entry| entry.unwrap().path());
    let today = folders.find(|path| *path != old).unwrap();
    std::fs::copy(today.join("auditlogs_first.json"), old.join("auditlogs_old.json")).unwrap();
    run(&ONCE, directory.path()).with(0);
    let sent = || lines(&directory.path().join("out.ndjson")).len();
    assert_eq!(sent(), 2);
    let none = state(&["prune"], directory.path()).with(0).stdout;
    assert!(none.contains("inputs.in.start_date is not set"), "{none}");
    let config = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    let dated = config.replacen("[inputs.in]\n", "[inputs.in]\nstart_date = \"2020-02-03\"\n", 1);
    write_config(directory.path(), &dated);
    let pruned = state(&["prune"], directory.path()).with(0).stdout;
    assert!(pruned.contains("in/out: 1 objects forgotten"), "{pruned}");
    assert!(state(&["prune"], directory.path()).with(0).stdout.contains("in/out: 0 objects"));
    run(&ONCE, directory.path()).with(0);
    assert_eq!(sent(), 2, "what is forgotten is not looked at");
    let sound = state(&["verify"], directory.path()).with(0).stdout;
    assert!(sound.contains("it is sound"), "{sound}");
    write_config(directory.path(), &config);
    run(&ONCE, directory.path()).with(0);
    assert_eq!(sent(), 3, "until it is asked for again");
}
