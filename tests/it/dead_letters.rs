//! Dead letters as a user meets them: listed, shown, sent again and dropped.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::collector::{Collector, Protocol};
use crate::support::place::{ONCE, deliver, growing, json_lines, lines, record, request_ids, write_config};
use crate::support::process::run;

#[test]
fn a_replayed_event_is_the_one_that_was_refused_cloud_and_object_included() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let letters = directory.path().join("state/dead-letters");
    std::fs::create_dir_all(&letters).unwrap();
    let letter = r#"{"time":"2026-01-05T00:00:00Z","pipeline":"in/out","reason":"rejected","detail":"","object":"a.json","offset":0,"line":0,"occurrence":0,"cloud":"aws","record":"{}","truncated":false}"#;
    std::fs::write(letters.join("in.out.ndjson"), format!("{letter}\n")).unwrap();
    run(&["dead-letters", "replay", "--config", "a.toml"], directory.path()).with(0);
    let event = std::fs::read_to_string(directory.path().join("out.ndjson")).unwrap();
    assert!(event.contains(r#""_source":{"cloud":"aws","object":"a.json"}"#), "{event}");
}

#[test]
fn a_single_run_that_left_dead_letters_says_so_with_its_exit_code() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let object = directory.path().join(format!("bucket/workspaceId=7/date={date}/auditlogs_bad.json"));
    std::fs::write(object, format!("{}\n{{\"cut\n{}\n", record(2), record(3))).unwrap();
    run(&ONCE, directory.path()).with(1);
    assert_eq!(lines(&directory.path().join("out.ndjson")).len(), 3, "the rest of the object goes on");
    run(&ONCE, directory.path()).with(0);
    let listed = run(&["dead-letters", "list", "--config", "a.toml"], directory.path()).with(0).stdout;
    assert!(listed.contains("in/out") && listed.contains("not_json"), "{listed}");
    let shown = run(&["dead-letters", "show", "--config", "a.toml"], directory.path()).with(0).stdout;
    let letter = &json_lines(&shown)[0];
    assert_eq!((&letter["record"], &letter["line"]), (&Value::from("{\"cut"), &Value::from(2)));
    assert!(letter["object"].as_str().unwrap().ends_with("auditlogs_bad.json"), "{letter}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_event_is_kept_shown_and_replayed() {
    let collector = Collector::start(Protocol::Hec).await;
    collector.set_poison("request-2");
    let directory = growing(&format!(
        "type = \"splunk_hec\"\nurl = \"{}\"\ntoken = {{ env = \"TOKEN\" }}",
        collector.url()
    ));
    let letters = |command: &str| run(&["dead-letters", command, "--config", "a.toml"], directory.path());
    assert_eq!(letters("list").with(0).stdout, "no dead letters\n");
    deliver(directory.path(), "first", &[1, 2, 3]);
    run(&ONCE, directory.path()).with(1);
    assert_eq!(request_ids(&collector.events()), ["request-1", "request-3"]);
    let listed = letters("list").with(0).stdout;
    assert!(listed.contains("in/out") && listed.contains("rejected"), "{listed}");
    let shown = json_lines(&letters("show").with(0).stdout);
    assert_eq!((shown.len(), &shown[0]["record"]), (1, &Value::from(record(2))));

    let replayed = letters("replay").with(1).stdout;
    assert_eq!(replayed, "in/out: 0 delivered, 1 dead letter again\n");
    assert_eq!(json_lines(&letters("show").with(0).stdout).len(), 1, "refused again, it is kept again");

    collector.set_poison("nothing");
    assert_eq!(letters("replay").with(0).stdout, "in/out: 1 delivered, 0 dead letters again\n");
    assert_eq!(letters("list").with(0).stdout, "no dead letters\n");
    let events = collector.events();
    assert_eq!(request_ids(&events), ["request-1", "request-3", "request-2"]);
    // The same as if it had been delivered at once.
    assert_eq!(events[2]["workspace_id"], "7");
    assert_eq!(events[2]["_source"]["object"], events[0]["_source"]["object"]);
    assert_eq!(letters("replay").with(0).stdout, "no dead letters to replay\n");
}

#[test]
fn a_letter_that_holds_only_the_beginning_of_a_record_is_kept_and_counted() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    write_config(
        directory.path(),
        &text.replace("\"bucket\"\n[out", "\"bucket\"\nmax_line_bytes = \"1KiB\"\n[out"),
    );
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let object = directory.path().join(format!("bucket/workspaceId=7/date={date}/auditlogs_long.json"));
    std::fs::write(object, format!("{{\"a\":\"{}\"}}\nno json\n", "x".repeat(5000))).unwrap();
    run(&ONCE, directory.path()).with(1);
    for _ in 0..2 {
        let replayed =
            run(&["dead-letters", "replay", "--config", "a.toml"], directory.path()).with(1).stdout;
        assert_eq!(replayed, "in/out: 0 delivered, 2 dead letters again\n");
    }
    let shown = run(&["dead-letters", "show", "--config", "a.toml"], directory.path()).with(0).stdout;
    let reasons: BTreeSet<_> = json_lines(&shown).iter().map(|letter| letter["reason"].to_string()).collect();
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["\"not_json\"", "\"too_long\""]);
}

#[test]
fn a_replay_of_one_pipeline_leaves_the_letters_of_others_alone_and_waits_for_no_replay_of_theirs() {
    let directory = growing("type = \"file\"\npath = \"out.ndjson\"");
    let letters = directory.path().join("state/dead-letters");
    std::fs::create_dir_all(&letters).unwrap();
    let letter = |pipeline: &str| {
        format!(
            r#"{{"time":"2026-01-05T00:00:00Z","pipeline":"{pipeline}","reason":"rejected","detail":"","object":"a.json","offset":0,"line":0,"occurrence":0,"record":"{{}}","truncated":false}}"#
        ) + "\n"
    };
    // The names of files are in this order.
    let (other, busy) = (letters.join("a.out.ndjson"), letters.join("b.out.ndjson.replaying"));
    std::fs::write(&other, letter("a/out")).unwrap();
    std::fs::write(&busy, letter("b/out")).unwrap();
    std::fs::write(letters.join("in.out.ndjson"), letter("in/out")).unwrap();
    let replaying = std::fs::File::open(&busy).unwrap();
    replaying.lock().unwrap();
    let replay = ["dead-letters", "replay", "--config", "a.toml", "--pipeline", "in/out"];
    let said = run(&replay, directory.path()).with(0).stdout;
    assert_eq!(said, "in/out: 1 delivered, 0 dead letters again\n");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), letter("a/out"));
    assert_eq!(std::fs::read_dir(&letters).unwrap().count(), 2, "nothing else is left, and nothing renamed");
}

#[test]
fn only_the_dead_letters_that_fit_are_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let letters = directory.path().join("state/dead-letters");
    std::fs::create_dir_all(&letters).unwrap();
    let letter = |pipeline: &str, day: u32, reason: &str| {
        format!(
            r#"{{"time":"2026-01-{day:02}T00:00:00Z","pipeline":"{pipeline}","reason":"{reason}","detail":"","object":"a","offset":0,"line":0,"occurrence":0,"record":"{{}}","truncated":false}}"#
        ) + "\n"
    };
    let first =
        letter("in/out", 1, "rejected") + &letter("in/out", 2, "not_json") + &letter("in/out", 3, "rejected");
    std::fs::write(letters.join("in.out.ndjson"), first).unwrap();
    std::fs::write(letters.join("in.b.ndjson"), letter("in/b", 1, "rejected")).unwrap();
    let on_letters = |command: &str, arguments: &[&str]| {
        run(&[&["dead-letters", command, "--state-dir", "state"], arguments].concat(), directory.path())
    };
    let refused = on_letters("drop", &[]).with(2).stderr;
    assert!(refused.starts_with("auditferry: ") && refused.contains("--all for every one"), "{refused}");
    assert_eq!(refused.trim_end().lines().count(), 1, "{refused}");
    on_letters("drop", &["--all", "--reason", "rejected"]).with(2);
    let shown = |arguments: &[&str]| json_lines(&on_letters("show", arguments).with(0).stdout).len();
    assert_eq!((shown(&[]), shown(&["--reason", "rejected"]), shown(&["--reason", "not_json"])), (4, 3, 1));

    let fitting = ["--pipeline", "in/out", "--reason", "rejected", "--before", "2026-01-03T00:00:00Z"];
    assert_eq!(on_letters("drop", &fitting).with(0).stdout, "1 dead letter dropped\n");
    assert_eq!((shown(&[]), shown(&["--pipeline", "in/out", "--reason", "rejected"])), (3, 1));
    assert_eq!(on_letters("drop", &fitting).with(0).stdout, "no dead letters to drop\n");
    assert_eq!(
        on_letters("drop", &["--before", "2026-01-03T00:00:00Z"]).with(0).stdout,
        "2 dead letters dropped\n"
    );
    assert_eq!(on_letters("drop", &["--all"]).with(0).stdout, "1 dead letter dropped\n");
    assert_eq!(std::fs::read_dir(&letters).unwrap().count(), 0, "no empty file is left");
}

#[test]
fn a_reader_of_dead_letters_needs_no_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let listed = run(&["dead-letters", "list", "--state-dir", "."], directory.path()).with(0);
    assert_eq!(listed.stdout, "no dead letters\n");
    for command in [["dead-letters", "list"], ["state", "verify"]] {
        let refused = run(&[&command[..], &["--state-dir", "stat"]].concat(), directory.path()).with(2);
        assert_eq!(refused.stderr, "auditferry: --state-dir: there is no directory stat\n");
    }
}
