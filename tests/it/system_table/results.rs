//! How results come: in answers, in chunks, behind links; and what is too large for them.

use std::time::Duration;

use auditferry::input::Read;
use auditferry::time::Millis;
use serde_json::json;

use crate::support::table::{Frozen, Shelf, noon, now, pass};
use crate::support::warehouse::{TableRow, Workspace};

const MINUTE: Duration = Duration::from_secs(60);

/// Rows of so many bytes, one a second from noon on; all visible at once.
fn rows(count: u64, pad: usize) -> Vec<TableRow> {
    (0..count)
        .map(|number| TableRow::padded(noon().plus(Duration::from_secs(number)), noon(), number, pad, false))
        .collect()
}

fn ids(rows: &[TableRow]) -> Vec<String> {
    rows.iter().map(|row| row.id.clone()).collect()
}

/// A workspace whose table has these rows, with a shelf, at a time when all of them can be read.
async fn filled(rows: &[TableRow], memory: usize) -> (Workspace, Shelf, Frozen) {
    let workspace = Workspace::start(now).await;
    let frozen = Frozen::start();
    workspace.insert(rows.to_vec());
    let mut shelf = Shelf::new(&workspace);
    shelf.memory = memory;
    shelf.set("start_time", json!("2026-01-05T12:00:00Z"));
    pass(Duration::from_secs(rows.len() as u64) + 2 * MINUTE).await;
    (workspace, shelf, frozen)
}

#[tokio::test]
async fn a_window_of_more_than_25_mib_splits_by_itself() {
    for honours_byte_limit in [true, false] {
        let rows = rows(2400, 20_000);
        let (workspace, mut shelf, _frozen) = filled(&rows, 128 << 20).await;
        if !honours_byte_limit {
            workspace.ignore_byte_limit();
        }
        shelf.poll(&*shelf.open()).await.unwrap();
        shelf.has_each_once(ids(&rows));
        assert_eq!(workspace.asked("/storage/"), 0, "no link was needed");
        let statements = workspace.asked("POST /api/2.0/sql/statements");
        assert!((3..10).contains(&statements), "{statements} statements");
        workspace.was_spoken_to_properly();
    }
}

#[tokio::test]
async fn with_little_memory_windows_are_as_small_as_that() {
    let rows = rows(600, 2000);
    let (workspace, mut shelf, _frozen) = filled(&rows, 1 << 20).await;
    shelf.poll(&*shelf.open()).await.unwrap();
    shelf.has_each_once(ids(&rows));
    assert!(workspace.asked("POST /api/2.0/sql/statements") > 4);
    workspace.ignore_byte_limit();
    let mut again = Shelf::new(&workspace);
    again.memory = 1 << 20;
    again.set("start_time", json!("2026-01-05T12:00:00Z"));
    again.poll(&*again.open()).await.unwrap();
    again.has_each_once(ids(&rows));
}

#[tokio::test]
async fn a_minute_that_is_too_large_comes_from_storage_without_credentials() {
    let rows = rows(50, 40_000);
    let (workspace, mut shelf, _frozen) = filled(&rows, 1 << 20).await;
    workspace.set_chunk_rows(7);
    shelf.poll(&*shelf.open()).await.unwrap();
    shelf.has_each_once(ids(&rows));
    assert_eq!(workspace.asked("GET /storage/"), 8);
    workspace.was_spoken_to_properly();
}

#[tokio::test]
async fn links_that_expired_are_asked_for_again() {
    let rows = rows(50, 40_000);
    let (workspace, mut shelf, _frozen) = filled(&rows, 1 << 20).await;
    workspace.set_chunk_rows(10);
    workspace.expire_links(2);
    shelf.poll(&*shelf.open()).await.unwrap();
    shelf.has_each_once(ids(&rows));
    assert_eq!(workspace.asked("GET /storage/"), 7);
    // Some that always expire are an error that passes, and says nothing of the links.
    let mut again = Shelf::new(&workspace);
    again.memory = 1 << 20;
    again.set("start_time", json!("2026-01-05T12:00:00Z"));
    workspace.expire_links(100);
    let input = again.open();
    let error = again.poll(&*input).await.unwrap_err();
    assert!(!error.needs_a_human() && error.to_string().contains("expire"), "{error}");
    assert!(!error.to_string().contains("storage/") && !error.to_string().contains("hunter2"), "{error}");
    workspace.expire_links(0);
    again.poll(&*input).await.unwrap();
    again.has_each_once(ids(&rows));
    workspace.was_spoken_to_properly();
}

/// The workspace's time in a test whose machine is ahead of it by more than a link is good for.
fn twenty_minutes_ago() -> Millis {
    now().minus(20 * MINUTE)
}

#[tokio::test]
async fn links_of_a_workspace_that_does_not_say_the_time_are_followed_though_the_clock_is_ahead() {
    let rows = rows(50, 40_000);
    let workspace = Workspace::start(twenty_minutes_ago).await;
    let _frozen = Frozen::start();
    workspace.insert(rows.clone());
    let mut shelf = Shelf::new(&workspace);
    shelf.memory = 1 << 20;
    shelf.set("start_time", json!("2026-01-05T12:00:00Z"));
    pass(30 * MINUTE).await;
    shelf.poll(&*shelf.open()).await.unwrap();
    shelf.has_each_once(ids(&rows));
    assert!(workspace.asked("GET /storage/") > 0);
}

#[tokio::test]
async fn a_result_that_breaks_off_is_read_again_less_what_was_handed_on() {
    let rows = rows(50, 40_000);
    let (workspace, mut shelf, _frozen) = filled(&rows, 1 << 20).await;
    workspace.set_chunk_rows(20);
    let input = shelf.open();
    workspace.break_links(3);
    let mut errors = 0;
    while let Err(error) = shelf.poll(&*input).await {
        assert!(!error.needs_a_human(), "{error}");
        errors += 1;
    }
    assert_eq!(errors, 3);
    shelf.has_each_once(ids(&rows));
    assert!(shelf.counts.records_skipped > 0);
}

#[tokio::test]
async fn a_result_that_lacks_rows_moves_nothing_on() {
    let rows = rows(50, 40_000);
    let (workspace, mut shelf, _frozen) = filled(&rows, 1 << 20).await;
    workspace.set_chunk_rows(20);
    workspace.shorten_links(1);
    let input = shelf.open();
    let error = shelf.poll(&*input).await.unwrap_err();
    assert!(error.to_string().contains("has 49 of its 50 rows"), "{error}");
    shelf.poll(&*input).await.unwrap();
    shelf.has_each_once(ids(&rows));
}

#[tokio::test]
async fn a_link_without_tls_is_not_followed() {
    let rows = rows(50, 40_000);
    for address in ["http://192.0.2.1", "http://127.0.0.1.storage.example", "file:///etc/passwd"] {
        let (workspace, mut shelf, _frozen) = filled(&rows, 1 << 20).await;
        workspace.link_to(address);
        let error = shelf.poll(&*shelf.open()).await.unwrap_err().to_string();
        assert!(error.contains("does not begin with https://") && !error.contains(address), "{error}");
        assert_eq!(workspace.asked("/storage/"), 0);
    }
}

#[tokio::test]
async fn a_row_that_is_too_long_is_reported_once_and_counts_in_its_own_hour() {
    let mut rows = rows(2, 100);
    // The first of its hour, in a window that begins in the hour before.
    let time = noon().plus(65 * MINUTE);
    rows.push(TableRow::padded(time, noon(), 2, 17 << 20, false));
    let (_workspace, mut shelf, _frozen) = filled(&rows, 128 << 20).await;
    let input = shelf.open();
    let mut reported = Vec::new();
    for _ in 0..4 {
        pass(70 * MINUTE).await;
        let mut read = Vec::new();
        while let Read::Chunk(chunk) = input.read().await.unwrap() {
            let long = chunk.malformed.iter().map(|long| (chunk.partition.as_str().to_owned(), long.reason));
            reported.extend(long);
            read.push(chunk);
        }
        shelf.commit(&*input, read).await;
    }
    assert_eq!(reported, [("system.access.audit/2026-01-05T13".to_owned(), "too_long")]);
    shelf.has_each_once(ids(&rows[..2]));
}

#[tokio::test]
async fn an_answer_in_several_chunks_is_read_whole() {
    let rows = rows(100, 100);
    let (workspace, mut shelf, _frozen) = filled(&rows, 32 << 20).await;
    workspace.set_chunk_rows(9);
    shelf.poll(&*shelf.open()).await.unwrap();
    shelf.has_each_once(ids(&rows));
    assert_eq!(workspace.asked("/result/chunks/"), 11);
    workspace.was_spoken_to_properly();
}

#[tokio::test]
async fn a_crash_between_any_two_chunks_loses_nothing_and_reads_nothing_twice() {
    let rows = rows(300, 2000);
    let expected = ids(&rows);
    let (_workspace, mut shelf, _frozen) = filled(&rows, 4 << 20).await;
    let mut starts = 0;
    loop {
        // Each life commits one chunk and reads some more.
        let input = shelf.open();
        starts += 1;
        match input.read().await.unwrap() {
            Read::Chunk(chunk) => shelf.commit(&*input, [chunk]).await,
            _ => break,
        }
        if starts > 100 {
            panic!("it does not end");
        }
        shelf.read_uncommitted(&*input, starts % 4).await;
        drop(input);
        let done = shelf.ids.len() == expected.len();
        if done {
            shelf.poll(&*shelf.open()).await.unwrap();
            break;
        }
    }
    assert!(starts > 1, "{starts} starts");
    shelf.has_each_once(expected);
}

#[tokio::test]
async fn a_row_becomes_the_canonical_record_of_the_table() {
    let (_workspace, mut shelf, _frozen) = filled(&rows(1, 3), 32 << 20).await;
    shelf.poll(&*shelf.open()).await.unwrap();
    let record = &shelf.records[0];
    let names: Vec<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names.len(), 17);
    assert_eq!(record["event_time"], "2026-01-05T12:00:00.000Z");
    assert_eq!(record["event_date"], "2026-01-05");
    assert_eq!(record["response"], r#"{"status_code":200}"#);
    assert_eq!(record["session_id"], json!(null));
}
