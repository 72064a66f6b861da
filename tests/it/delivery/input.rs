//! Objects that are not as they should be, beside others that are.

use std::io::Write;

use auditferry::buffer::Pool;
use auditferry::compress::Encoding;

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Ferry, Place, content, eventually, has, output, record, request_ids};

/// Starts a pipeline to one collector.
async fn start(place: &Place, input: &str) -> (Ferry, Collector) {
    let collector = Collector::start(Protocol::Sumo).await;
    let ferry = place.start(input, &[output(&collector, "")]).await;
    (ferry, collector)
}

fn lines(ids: &[&str]) -> String {
    ids.iter().map(|id| record(id) + "\n").collect()
}

/// Fails unless exactly these arrived, each once.
fn arrived(collector: &Collector, ids: &[&str]) {
    let mut found: Vec<String> = request_ids(collector).into_iter().collect();
    found.sort();
    assert_eq!(found, ids);
    assert_eq!(collector.ids().len(), ids.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_are_no_records_become_dead_letters_and_the_others_arrive() {
    let place = Place::new();
    let long = record(&"x".repeat(3000));
    let mut object = lines(&["a"]).into_bytes();
    object.extend_from_slice(b"{\"serviceName\":\n");
    object.extend_from_slice(lines(&["b"]).as_bytes());
    object.extend_from_slice(record("\u{0}").replace('\u{0}', "x").as_bytes());
    let at = object.len() - 3;
    object[at] = 0xff;
    object.extend_from_slice(b"\n7\n");
    object.extend_from_slice(lines(&["c"]).as_bytes());
    object.extend_from_slice((long.clone() + "\n").as_bytes());
    object.extend_from_slice(lines(&["d"]).as_bytes());
    place.put("a.json", &object);
    let (ferry, collector) = start(&place, "max_line_bytes = '1KiB'").await;
    has(&collector, 4).await;
    ferry.rests().await;
    ferry.stop().await;
    arrived(&collector, &["a", "b", "c", "d"]);
    let letters = place.letters();
    let mut reasons: Vec<_> = letters.iter().map(|kept| kept.letter.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["invalid_utf8", "not_an_object", "not_json", "too_long"]);
    for kept in &letters {
        let offset = usize::try_from(kept.letter.origin.offset).unwrap();
        assert!(object[offset..].starts_with(&kept.letter.record), "{}", kept.letter.reason);
        let before = object[..offset].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(kept.letter.origin.line, before as u64, "{}", kept.letter.reason);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_ends_of_windows_a_byte_order_mark_and_blank_lines_are_no_part_of_records() {
    let place = Place::new();
    let (a, b, c) = (record("a"), record("b"), record("c"));
    place.put("a.json", format!("\u{feff}{a}\r\n\r\n  \n\n{b}\r\n{c}"));
    place.put("empty.json", "");
    let (ferry, collector) = start(&place, "").await;
    has(&collector, 3).await;
    place.put("empty.json", lines(&["d"]));
    has(&collector, 4).await;
    ferry.rests().await;
    ferry.stop().await;
    arrived(&collector, &["a", "b", "c", "d"]);
    assert!(place.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_line_waits_until_it_is_whole() {
    let place = Place::new();
    let mut first = record("b");
    let second = first.split_off(40);
    place.put("a.json", lines(&["a"]) + &first);
    let (ferry, collector) = start(&place, "verify_whole_below = '0KiB'").await;
    has(&collector, 1).await;
    ferry.rests().await;
    let path = place.bucket().join(Place::key("a.json"));
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all((second + "\n" + &lines(&["c"])).as_bytes()).unwrap();
    drop(file);
    has(&collector, 3).await;
    ferry.rests().await;
    ferry.stop().await;
    arrived(&collector, &["a", "b", "c"]);
    assert!(place.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_objects_are_read_and_their_new_lines_found() {
    let place = Place::new();
    let packed = |encoding: Encoding, ids: &[&str]| {
        encoding.compress(&[lines(ids).as_bytes()], &Pool::default()).unwrap()
    };
    place.put("a.json.gz", packed(Encoding::Gzip, &["a1", "a2"]));
    place.put("b.json.zst", packed(Encoding::Zstd, &["b1"]));
    place.put("late.json.gz", "");
    let (ferry, collector) = start(&place, "verify_whole_below = '0KiB'").await;
    has(&collector, 3).await;
    ferry.rests().await;
    place.put("a.json.gz", packed(Encoding::Gzip, &["a1", "a2", "a3"]));
    place.put("b.json.zst", packed(Encoding::Zstd, &["b0", "b1", "b2"]));
    place.put("late.json.gz", packed(Encoding::Gzip, &["c1"]));
    has(&collector, 7).await;
    ferry.rests().await;
    ferry.stop().await;
    arrived(&collector, &["a1", "a2", "a3", "b0", "b1", "b2", "c1"]);
    assert!(place.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_object_that_was_cut_short_is_said_once_and_completed_later() {
    let place = Place::new();
    let ids: Vec<String> =
        (0..5000_u32).map(|number| format!("{number:04}-{:x}", number.wrapping_mul(2_654_435_761))).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let whole = Encoding::Gzip.compress(&[lines(&ids).as_bytes()], &Pool::default()).unwrap();
    place.put("a.json.gz", &whole[..whole.len() / 2]);
    let (ferry, collector) = start(&place, "").await;
    eventually("the dead letter", || ferry.route("sumo").metrics.dead_letters() > 0).await;
    ferry.rests().await;
    assert!(!collector.ids().is_empty(), "what could be read is sent");
    place.put("a.json.gz", &whole);
    has(&collector, 5000).await;
    ferry.rests().await;
    ferry.stop().await;
    arrived(&collector, &ids);
    let letters = place.letters();
    let reasons: Vec<_> = letters.iter().map(|kept| kept.letter.reason.as_str()).collect();
    assert_eq!(reasons, ["broken_compression"], "the half line at its end is no record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_vanish_or_cannot_be_read_hold_up_no_other() {
    let place = Place::new();
    place.put("a.json", lines(&["a"]));
    let (ferry, collector) = start(&place, "").await;
    has(&collector, 1).await;
    let folder = place.bucket().join(Place::key("a.json")).parent().unwrap().to_owned();
    std::os::unix::fs::symlink("nowhere", folder.join("auditlogs_broken.json")).unwrap();
    std::fs::create_dir(folder.join("auditlogs_directory.json")).unwrap();
    std::fs::remove_file(folder.join("auditlogs_a.json")).unwrap();
    place.put("b.json", lines(&["b"]));
    has(&collector, 2).await;
    place.put("a.json", lines(&["a", "c"]));
    has(&collector, 3).await;
    ferry.rests().await;
    ferry.stop().await;
    arrived(&collector, &["a", "b", "c"]);
    assert!(place.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_that_is_new_is_found_at_once() {
    let place = Place::new();
    let (ferry, collector) = start(&place, "").await;
    ferry.rests().await;
    place.put("a.json", lines(&["a"]));
    has(&collector, 1).await;
    ferry.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_longer_than_memory_costs_no_growth_its_seam() {
    let place = Place::new();
    let long = record(&"x".repeat(3 << 20)) + "\n";
    let grown = |ids: &[&str]| lines(&["a"]) + &long + &lines(ids);
    place.put("a.json", grown(&["b"]));
    let (ferry, collector) = start(&place, "max_line_bytes = '1MiB'\nverify_whole_below = '0KiB'").await;
    has(&collector, 2).await;
    ferry.rests().await;
    let fetched = ferry.route("sumo").metrics.bytes_fetched.get();
    place.put("a.json", grown(&["b", "c"]));
    has(&collector, 3).await;
    ferry.rests().await;
    let metrics = ferry.route("sumo").metrics.clone();
    assert_eq!((metrics.prefix_mismatch.get(), metrics.dead_letters()), (0, 1));
    assert!(metrics.bytes_fetched.get() - fetched <= 65 << 10);
    // An unfinished one waits like any other.
    let more = grown(&["b", "c"]) + &record(&"y".repeat(3 << 20));
    let read = metrics.objects_read.get();
    place.put("a.json", &more[..more.len() - 10]);
    eventually("the half line is read", || metrics.objects_read.get() > read).await;
    place.put("a.json", more + "\n" + &lines(&["d"]));
    has(&collector, 4).await;
    ferry.rests().await;
    ferry.stop().await;
    arrived(&collector, &["a", "b", "c", "d"]);
    let letters = place.letters();
    let reasons: Vec<_> = letters.iter().map(|kept| kept.letter.reason.as_str()).collect();
    assert_eq!(reasons, ["too_long", "too_long"]);
    let object = content(&place.bucket().join(Place::key("a.json")));
    for kept in letters {
        let offset = usize::try_from(kept.letter.origin.offset).unwrap();
        assert!(object[offset..].starts_with(&kept.letter.record));
    }
}
