//! Hostile input takes no more memory than is configured: the real binary's peak is measured. `cargo bench --bench bounds`
//! does the same with gigabytes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::support::place::{ONCE, RUN, configured, growing, json_lines, lines, record};
use crate::support::process::{Ended, Process, run};

/// What a run may hold at once with the default of `memory`, 32 MiB: what is read, encoded and compressed of that, and the
/// program itself.
const MOST_BYTES: u64 = 128 << 20;
/// The same with a line of nearly `max_line_bytes`, which comes on top: as read, as encoded, and as both grow.
const MOST_BYTES_LONG_LINE: u64 = 224 << 20;

fn place() -> TempDir {
    growing("type = \"file\"\npath = \"out.ndjson\"")
}

/// An object beside the first one.
fn object(directory: &Path, name: &str) -> PathBuf {
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    directory.join(format!("bucket/workspaceId=7/date={date}/auditlogs_{name}"))
}

fn fits(ended: &Ended, most: u64) {
    assert!(
        ended.peak_bytes > 0 && ended.peak_bytes <= most,
        "{} MB\n{}",
        ended.peak_bytes >> 20,
        ended.stderr
    );
}

/// Reason and detail of the dead letters.
fn letters(directory: &Path) -> Vec<(String, String)> {
    let shown = run(&["dead-letters", "show", "--config", "a.toml"], directory).with(0).stdout;
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    json_lines(&shown).iter().map(|letter| (text(&letter["reason"]), text(&letter["detail"]))).collect()
}

/// Ships an object and the first one; gives the dead letters and the number of events.
fn shipped(directory: &Path, most: u64) -> (Vec<(String, String)>, usize) {
    let ended = run(&ONCE, directory);
    fits(&ended, most);
    assert!(matches!(ended.code, Some(0 | 1)), "{}", ended.stderr);
    let again = run(&ONCE, directory).with(0);
    fits(&again, most);
    let events = lines(&directory.join("out.ndjson")).len();
    (letters(directory), events)
}

#[test]
fn a_line_without_end_is_a_dead_letter_of_its_beginning() {
    const LINE_BYTES: u64 = 400 << 20;
    let directory = place();
    let mut file = File::create(object(directory.path(), "long.json")).unwrap();
    // A hole in the file: no disk is filled.
    file.set_len(LINE_BYTES).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    writeln!(file, "\n{}", record(2)).unwrap();
    let (letters, events) = shipped(directory.path(), MOST_BYTES);
    assert_eq!((letters.len(), letters[0].0.as_str(), events), (1, "too_long", 2));
    assert!(letters[0].1.contains(&LINE_BYTES.to_string()), "{letters:?}");
}

#[test]
fn ten_million_empty_lines_are_nothing() {
    let directory = place();
    std::fs::write(
        object(directory.path(), "empty.json"),
        [b"\n".repeat(10_000_000), record(2).into()].concat(),
    )
    .unwrap();
    assert_eq!(shipped(directory.path(), MOST_BYTES), (vec![], 2));
}

#[test]
fn lines_of_two_bytes_take_no_more_than_others() {
    const LINES: usize = 500_000;
    let directory = place();
    std::fs::write(object(directory.path(), "short.json"), b"{}\n".repeat(LINES)).unwrap();
    assert_eq!(shipped(directory.path(), MOST_BYTES), (vec![], LINES + 1));
}

#[test]
fn an_envelope_of_a_million_records_is_a_dead_letter_and_one_of_many_is_none() {
    let directory = place();
    let envelope = |records: usize| format!("[{}{{}}]\n", "{},".repeat(records - 1));
    std::fs::write(object(directory.path(), "huge.json"), envelope(1_000_000)).unwrap();
    std::fs::write(object(directory.path(), "larger.json"), envelope(49_999)).unwrap();
    std::fs::write(object(directory.path(), "large.json"), envelope(20_000)).unwrap();
    let (letters, events) = shipped(directory.path(), MOST_BYTES);
    assert_eq!(events, 20_001, "no part of the others");
    let mut reasons: Vec<&str> = letters.iter().map(|(reason, _)| reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["too_large", "too_many_records"]);
}

#[test]
fn json_as_deep_as_a_line_is_long_breaks_nothing() {
    const DEEP: usize = 1 << 20;
    let directory = place();
    let with = |value: &str| record(2).replace("\"requestParams\":{}", &format!("\"requestParams\":{value}"));
    let objects = format!("{}1{}", "{\"a\":".repeat(DEEP), "}".repeat(DEEP));
    let arrays = format!("{{\"a\":{}{}}}", "[".repeat(DEEP), "]".repeat(DEEP));
    let text = serde_json::json!({ "a": objects }).to_string();
    let lines = [
        "[".repeat(DEEP),
        "{\"a\":".repeat(DEEP),
        with(&objects),
        with(&arrays),
        with(&text),
        "[".repeat(DEEP) + &"]".repeat(DEEP),
    ];
    std::fs::write(object(directory.path(), "deep.json"), lines.join("\n")).unwrap();
    let (letters, events) = shipped(directory.path(), MOST_BYTES);
    assert_eq!(letters.len() + events, 1 + 6, "each is an event or a dead letter: {letters:?}");
    assert!(letters.len() >= 2, "{letters:?}");
}

#[test]
fn a_text_of_megabytes_within_a_text_is_shipped_or_a_dead_letter() {
    let directory = place();
    let with = |bytes: usize| {
        let nested = format!("{{\\\"b\\\":\\\"{}\\\"}}", "x".repeat(bytes));
        record(2).replace("\"requestParams\":{}", &format!("\"requestParams\":{{\"a\":\"{nested}\"}}")) + "\n"
    };
    let mut file = File::create(object(directory.path(), "nested.json")).unwrap();
    for bytes in [15 << 20, 100 << 20, 15 << 20] {
        file.write_all(with(bytes).as_bytes()).unwrap();
    }
    let (letters, events) = shipped(directory.path(), MOST_BYTES_LONG_LINE);
    assert_eq!((letters.len(), letters[0].0.as_str(), events), (1, "too_long", 3));
}

/// An object of a few bytes that are as many megabytes of this, then a record.
fn gzip_bomb(path: &Path, block: &[u8], megabytes: usize) {
    let mut encoder = GzEncoder::new(File::create(path).unwrap(), Compression::best());
    let block = block.repeat((1 << 20) / block.len());
    for _ in 0..megabytes {
        encoder.write_all(&block).unwrap();
    }
    writeln!(encoder, "\n{}", record(3)).unwrap();
    encoder.finish().unwrap();
}

#[test]
fn a_gzip_bomb_is_a_dead_letter_with_its_reason_and_other_objects_go_on() {
    let directory = place();
    gzip_bomb(&object(directory.path(), "bomb.json.gz"), b"x", 512);
    gzip_bomb(&object(directory.path(), "log.json.gz"), b"\n", 8);
    let (letters, events) = shipped(directory.path(), MOST_BYTES);
    assert_eq!((letters.len(), events), (1, 2), "{letters:?}");
    let bomb = letters.iter().find(|(reason, _)| reason == "decompression_bomb").unwrap();
    assert!(bomb.1.contains("more than 200 times"), "{bomb:?}");
}

#[test]
fn a_zstd_bomb_is_no_better() {
    let directory = place();
    let mut encoder =
        zstd::Encoder::new(File::create(object(directory.path(), "bomb.json.zst")).unwrap(), 19).unwrap();
    for _ in 0..256 {
        encoder.write_all(&[b'x'; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap();
    let (letters, events) = shipped(directory.path(), MOST_BYTES);
    assert!(letters.iter().any(|(reason, _)| reason == "decompression_bomb"), "{letters:?}");
    assert_eq!(events, 1);
}

/// Answers each request with a gigabyte.
fn talkative(listener: &TcpListener) {
    let answer = |mut stream: TcpStream| -> std::io::Result<()> {
        let mut request = [0; 64 << 10];
        let _ = stream.read(&mut request)?;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 30)?;
        for _ in 0..1024 {
            stream.write_all(&[b' '; 1 << 20])?;
        }
        Ok(())
    };
    for stream in listener.incoming() {
        // It is hung up on.
        let _ = answer(stream.unwrap());
    }
}

#[test]
fn a_collector_that_answers_a_gigabyte_is_not_listened_to_to_the_end() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || talkative(&listener));
    for (output, keys) in
        [("http", ""), ("splunk_hec", "token = \"hunter2\"\n"), ("elastic", "index = \"audit\"\n")]
    {
        let directory = configured(&format!(
            "state_dir = \"state\"\nserver.listen = \"none\"\n[inputs.in]\ntype = \"bucket\"\nurl = \"bucket\"\n\
             [outputs.out]\ntype = \"{output}\"\nurl = \"http://{address}\"\nproxy = \"none\"\n{keys}"
        ));
        crate::support::place::deliver(directory.path(), "first", &[1]);
        let mut process = Process::start(&RUN, directory.path());
        let mut looks = 0;
        // Accepted, or tried again: what matters is that it does not take in what it is told.
        process.until("some requests made", |process| {
            looks += 1;
            assert!(process.peak_bytes() <= MOST_BYTES, "{output}: {} MB", process.peak_bytes() >> 20);
            looks > 300
        });
        process.kill();
    }
}

#[test]
fn a_thousand_workspaces_are_so_many_labels_at_most() {
    const WORKSPACES: usize = 1000;
    let directory = place();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    for workspace in 0..WORKSPACES {
        let folder = directory.path().join(format!("bucket/workspaceId={workspace}/date={date}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("auditlogs_2.json"), record(2)).unwrap();
    }
    let text = std::fs::read_to_string(directory.path().join("a.toml")).unwrap();
    crate::support::place::write_config(
        directory.path(),
        &text.replace("server.listen = \"none\"", "server.listen = \"127.0.0.1:0\""),
    );
    let mut process = Process::start(&RUN, directory.path());
    process.until("all shipped", |_| lines(&directory.path().join("out.ndjson")).len() > WORKSPACES);
    process.until("as many labels as there may be", |process| {
        process.get("/metrics").contains("workspace=\"other\"")
    });
    let metrics = process.get("/metrics");
    let labels = metrics.lines().filter(|line| line.starts_with("auditferry_input_lag_seconds{")).count();
    assert_eq!(labels, auditferry::metrics::MAX_WORKSPACES + 1);
    process.signal("TERM");
    fits(&process.end().with(0), MOST_BYTES);
}
