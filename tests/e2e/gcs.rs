//! Reading a delivery bucket in Google Cloud Storage.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::fake_gcs::FakeGcs;
use crate::ferry::{Ferry, change, content, key, succeeded};
use crate::metadata::Metadata;
use crate::moto::BUCKET;
use crate::recorder::Recorder;

/// A service account that exists nowhere: its key was made for these tests.
const SERVICE_ACCOUNT: &str = include_str!("service_account.json");

/// Reads `gs://audit/logs` at an address; `gcs` holds further lines of the input's table `gcs`.
fn reading(endpoint: std::net::SocketAddr, gcs: &str) -> Ferry {
    let gcs = format!("[inputs.audit.gcs]\nendpoint = \"http://{endpoint}\"\nallow_http = true\n{gcs}");
    Ferry::configured(&format!("gs://{BUCKET}/logs"), &gcs, "")
}

const ANONYMOUS: &str = "anonymous = true";

#[test]
fn an_object_that_is_overwritten_again_and_again_is_delivered_once() {
    let gcs = FakeGcs::start();
    let ferry = reading(gcs.address, ANONYMOUS);
    let key = key(2_748_391_056_473_829, "high-volume");
    let mut lines: Vec<usize> = Vec::new();
    for round in 0..8 {
        change(&mut lines, round);
        gcs.put(&key, &content(&lines));
        ferry.run();
        ferry.assert_delivered_once(lines.iter().copied());
    }
}

#[test]
fn of_a_large_object_little_more_than_the_new_bytes_is_fetched() {
    let gcs = FakeGcs::start();
    let recorder = Recorder::start(gcs.address);
    let ferry = reading(recorder.address, ANONYMOUS);
    let key = key(7, "large");
    let mut lines: Vec<usize> = (0..4000).collect();
    gcs.put(&key, &content(&lines));
    ferry.run();
    ferry.assert_delivered_once(0..4000);

    recorder.forget();
    lines.extend(4000..4100);
    gcs.put(&key, &content(&lines));
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
    let gcs = FakeGcs::start();
    let recorder = Recorder::start(gcs.address);
    let ferry = reading(recorder.address, ANONYMOUS);
    let key = key(7, "moving");
    let all: Vec<usize> = (0..1500).collect();
    gcs.put(&key, &content(&all[..1000]));
    ferry.run();
    gcs.put(&key, &content(&all[..1200]));
    let (bucket, runtime, last) = (gcs.bucket.clone(), gcs.runtime.handle().clone(), content(&all));
    recorder.interrupt(["get ", "if-match"], move || runtime.block_on(bucket.put(&key, last)));
    recorder.forget();
    ferry.run();
    assert!(recorder.answered().contains("HTTP/1.1 412"), "the read met the change");
    ferry.run();
    ferry.assert_delivered_once(all);
}

#[test]
fn a_bucket_of_thousands_of_keys_is_delivered_once() {
    let gcs = FakeGcs::start();
    let recorder = Recorder::start(gcs.address);
    let ferry = reading(recorder.address, ANONYMOUS);
    // More than two pages in one date folder, and several workspaces.
    let workspace = |number: usize| if number < 2500 { 1 } else { 2 + number as u64 % 3 };
    gcs.put_all(
        (0..3000).map(|number| (key(workspace(number), &format!("{number:05}")), content(&[number]))),
    );
    ferry.run();
    ferry.assert_delivered_once(0..3000);
    assert!(recorder.asked().contains("continuation-token="), "the listing went on to another page");
    recorder.forget();
    ferry.run();
    ferry.assert_delivered_once(0..3000);
    assert!(!recorder.asked().contains("if-match"), "nothing has changed, nothing is read");
}

/// Ships an object with these settings and this environment; gives the bearer token that it was asked for with.
fn ship(settings: &str, environment: &[(&str, &str)], well_known: Option<&str>) -> String {
    let gcs = FakeGcs::start();
    gcs.put(&key(1, "one"), &content(&[1, 2, 3]));
    let recorder = Recorder::start(gcs.address);
    let ferry = reading(recorder.address, settings);
    if let Some(credentials) = well_known {
        let directory = ferry.directory.path().join(".config/gcloud");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("application_default_credentials.json"), credentials).unwrap();
    }
    succeeded(&ferry.run_with(environment));
    ferry.assert_delivered_once(1..=3);
    recorder.bearer().unwrap()
}

/// The token is one that the service account has signed for itself.
fn assert_signed_by_the_service_account(token: &str) {
    let parts: Vec<&str> = token.split('.').collect();
    let part = |number: usize| -> serde_json::Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[number]).unwrap()).unwrap()
    };
    assert_eq!(
        (parts.len(), &part(0)["alg"], &part(0)["kid"]),
        (3, &"RS256".into(), &"key-of-the-tests".into())
    );
    assert_eq!(part(1)["iss"], "reader@acme-test.iam.gserviceaccount.com");
    assert!(
        part(1)["scope"].as_str().unwrap().starts_with("https://www.googleapis.com/auth/"),
        "{}",
        part(1)
    );
}

fn service_account_file() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("service_account.json");
    std::fs::write(&file, SERVICE_ACCOUNT).unwrap();
    let file = file.display().to_string();
    (directory, file)
}

#[test]
fn a_service_account_signs_for_itself() {
    let (_directory, file) = service_account_file();
    assert_signed_by_the_service_account(&ship(&format!("service_account_file = \"{file}\""), &[], None));
}

#[test]
fn application_default_credentials_are_found_in_the_environment_and_where_gcloud_keeps_them() {
    let (_directory, file) = service_account_file();
    let environment = [("GOOGLE_APPLICATION_CREDENTIALS", file.as_str())];
    assert_signed_by_the_service_account(&ship("", &environment, None));
    assert_signed_by_the_service_account(&ship("", &[], Some(SERVICE_ACCOUNT)));
}

#[test]
fn workload_identity_and_instances_have_their_token_from_the_metadata_server() {
    const TOKEN: &str = "GET /computeMetadata/v1/instance/service-accounts/default/token";
    let metadata = Metadata::start(|asked, headers| {
        (asked == TOKEN && headers["metadata-flavor"] == "Google").then(|| {
            r#"{"access_token":"ya29.of-the-pod","expires_in":3599,"token_type":"Bearer"}"#.to_owned()
        })
    });
    let host = metadata.address.to_string();
    assert_eq!(ship("", &[("GCE_METADATA_HOST", &host)], None), "ya29.of-the-pod");
}

#[test]
fn credentials_of_a_kind_that_is_not_offered_are_a_plain_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("federation.json");
    std::fs::write(&file, r#"{"type":"external_account","audience":"//iam.googleapis.com/x"}"#).unwrap();
    let gcs = FakeGcs::start();
    let ferry = reading(gcs.address, "");
    let output = ferry.run_with(&[("GOOGLE_APPLICATION_CREDENTIALS", &file.display().to_string())]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("inputs.audit.gcs") && said.contains("external_account"), "{said}");
}
