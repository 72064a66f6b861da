//! Reading a delivery bucket over S3.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStoreExt, PutPayload};

use crate::ferry::{Ferry, KEYS, change, content, key};
use crate::moto::Moto;
use crate::recorder::Recorder;

#[test]
fn the_server_refuses_a_ranged_read_of_an_object_that_changed() {
    let moto = Moto::start();
    moto.put("a", "first content");
    let path = Path::from("a");
    let before = moto.runtime.block_on(moto.store.head(&path)).unwrap().e_tag;
    moto.put("a", "second content");
    let options = GetOptions { range: Some(GetRange::Offset(7)), if_match: before, ..GetOptions::default() };
    let error =
        moto.runtime.block_on(object_store::ObjectStore::get_opts(&*moto.store, &path, options)).unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error}");
}

#[test]
fn an_object_that_is_overwritten_again_and_again_is_delivered_once() {
    let moto = Moto::start();
    let ferry = Ferry::new(moto.address, KEYS);
    let key = key(2_748_391_056_473_829, "high-volume");
    let mut lines: Vec<usize> = Vec::new();
    for round in 0..8 {
        change(&mut lines, round);
        moto.put(&key, &content(&lines));
        ferry.run();
        ferry.assert_delivered_once(lines.iter().copied());
    }
}

#[test]
fn of_a_large_object_little_more_than_the_new_bytes_is_fetched() {
    let moto = Moto::start();
    let recorder = Recorder::start(moto.address);
    let ferry = Ferry::new(recorder.address, KEYS);
    let key = key(7, "large");
    let mut lines: Vec<usize> = (0..4000).collect();
    moto.put(&key, &content(&lines));
    ferry.run();
    ferry.assert_delivered_once(0..4000);
    assert!(recorder.answered().len() > content(&lines).len(), "the first run goes through the recorder");

    recorder.forget();
    lines.extend(4000..4100);
    moto.put(&key, &content(&lines));
    ferry.run();
    ferry.assert_delivered_once(0..4100);
    let asked = recorder.asked();
    assert!(asked.contains("\r\nrange: bytes=") && asked.contains("\r\nif-match:"), "{asked}");
    // The new lines, the seam of at most 64 KiB, and a listing.
    let fetched = recorder.answered().len();
    let limit = content(&(4000..4100).collect::<Vec<_>>()).len() + 64 * 1024 + 32 * 1024;
    assert!(fetched < limit, "{fetched} bytes fetched, at most {limit} expected");
}

#[test]
fn an_object_that_changes_between_listing_and_reading_is_read_as_it_became() {
    let moto = Moto::start();
    let recorder = Recorder::start(moto.address);
    let ferry = Ferry::new(recorder.address, KEYS);
    let key = key(7, "moving");
    let all: Vec<usize> = (0..1500).collect();
    moto.put(&key, &content(&all[..1000]));
    ferry.run();
    moto.put(&key, &content(&all[..1200]));
    let (store, runtime) = (Arc::clone(&moto.store), moto.runtime.handle().clone());
    let (path, last) = (Path::from(key.as_str()), content(&all));
    recorder.interrupt(["get ", "if-match"], move || {
        runtime.block_on(store.put(&path, PutPayload::from(last))).unwrap();
    });
    recorder.forget();
    ferry.run();
    assert!(recorder.answered().contains("HTTP/1.1 412"), "the read met the change");
    // Nothing twice from the run that met it; whatever it left for later comes with the next.
    ferry.run();
    ferry.assert_delivered_once(all);
}

#[test]
fn a_bucket_of_thousands_of_keys_is_delivered_once() {
    let moto = Moto::start();
    let ferry = Ferry::new(moto.address, KEYS);
    // More than three pages in one date folder, and several workspaces.
    let workspace = |number: usize| if number < 2500 { 1 } else { 2 + number as u64 % 3 };
    moto.put_all(
        (0..3000).map(|number| (key(workspace(number), &format!("{number:05}")), content(&[number]))),
    );
    ferry.run();
    ferry.assert_delivered_once(0..3000);
    ferry.run();
    ferry.assert_delivered_once(0..3000);
}

#[test]
fn a_bucket_that_is_not_there_is_a_plain_error() {
    let moto = Moto::start();
    let ferry = Ferry::reading("s3://no-such-bucket/logs", moto.address, KEYS);
    let output = ferry.run_with(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no-such-bucket"), "{said}");
}
