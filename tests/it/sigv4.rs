//! Signed requests to Amazon OpenSearch, checked by a second implementation of the signature: the algorithm as Amazon's
//! documentation tells it, step by step.

use auditferry::batch::Request;
use auditferry::compress::Encoding;
use auditferry::format::FormatName;
use auditferry::http::HttpSettings;
use auditferry::output::{HoldReason, Output, OutputContext, Verdict, elastic};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::collector::{Collector, Protocol, Received, Step};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// RFC 2104, for keys no longer than a block.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

/// What a signature is made of, as it is written in the header.
struct Scope<'a> {
    date: &'a str,
    region: &'a str,
    service: &'a str,
}

fn signature(scope: &Scope<'_>, time: &str, canonical_request: &str) -> String {
    let Scope { date, region, service } = scope;
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{time}\n{date}/{region}/{service}/aws4_request\n{}",
        digest(canonical_request)
    );
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in [*date, *region, *service, "aws4_request"] {
        key = hmac(&key, part);
    }
    hex(&hmac(&key, &to_sign))
}

/// RFC 3986: everything but letters, digits and `-._~`.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Fails unless a request is signed for this service, with these headers among those that are.
fn is_signed(request: &Received, region: &str, service: &str, wanted: &[&str]) {
    let authorization = request.header("authorization").unwrap();
    let part = |name: &str| {
        authorization.split([' ', ',']).find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap()
    };
    let time = request.header("x-amz-date").unwrap();
    let scope = Scope { date: &time[..8], region, service };
    let credential = format!("AKIDEXAMPLE/{}/{region}/{service}/aws4_request", scope.date);
    assert_eq!(part("Credential"), credential);
    let names = part("SignedHeaders");
    for name in wanted {
        assert!(names.split(';').any(|signed| signed == *name), "{name} is not signed: {names}");
    }
    let payload = digest(&request.body);
    assert_eq!(request.header("x-amz-content-sha256"), Some(payload.as_str()));
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let query: Vec<String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    let headers: String =
        names.split(';').map(|name| format!("{name}:{}\n", request.header(name).unwrap())).collect();
    let canonical = format!("{}\n{path}\n{}\n{headers}\n{names}\n{payload}", request.method, query.join("&"));
    assert_eq!(part("Signature"), signature(&scope, time, &canonical), "{canonical}");
}

fn output(url: &str, aws: &Value) -> Box<dyn Output> {
    let http = HttpSettings { proxy: Some("none".to_owned()), ..HttpSettings::default() };
    let context = OutputContext { name: "out".to_owned(), format: FormatName::Canonical, http };
    (elastic::KIND.build)(json!({"url": url, "aws": aws}), context).unwrap()
}

fn request(body: &'static str) -> Request {
    Request { body: body.into(), encoding: Encoding::None, events: 1, uncompressed_bytes: body.len() }
}

const DOCUMENT: &str = "{\"create\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"a\":1}\n";

#[test]
fn the_second_implementation_agrees_with_amazons_test_suite() {
    // `get-vanilla` of the published suite.
    let scope = Scope { date: "20150830", region: "us-east-1", service: "service" };
    let canonical = format!(
        "GET\n/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n{}",
        digest("")
    );
    let expected = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    assert_eq!(signature(&scope, "20150830T123600Z", &canonical), expected);
}

#[tokio::test]
async fn requests_to_both_services_are_signed_with_the_digest_of_the_body() {
    let collector = Collector::start(Protocol::Bulk).await;
    for service in ["es", "aoss"] {
        let aws = json!({
            "service": service, "region": "eu-west-1", "access_key_id": "AKIDEXAMPLE",
            "secret_access_key": SECRET, "session_token": "the session's"
        });
        let verdict = output(collector.url(), &aws).send(&request(DOCUMENT)).await;
        assert_ne!(verdict.label(), "hold", "{verdict:?}");
        let received = collector.requests().pop().unwrap();
        let wanted = ["host", "content-type", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"];
        is_signed(&received, "eu-west-1", service, &wanted);
        assert_eq!(received.header("x-amz-security-token"), Some("the session's"));
    }
}

#[tokio::test]
async fn a_new_key_in_its_file_signs_the_next_request_and_a_missing_one_holds() {
    let collector = Collector::start(Protocol::Bulk).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "not yet the right one").unwrap();
    let aws =
        json!({"region": "eu-west-1", "access_key_id": "AKIDEXAMPLE", "secret_access_key": {"file": path}});
    let output = output(collector.url(), &aws);
    let refusal =
        r#"{"message":"The request signature we calculated does not match the signature you provided."}"#;
    collector.push(Step::answer(403, refusal));
    let hold = output.send(&request(DOCUMENT)).await;
    let Verdict::Hold(alarm) = hold else { panic!("{hold:?} is no hold") };
    assert_eq!(alarm.reason, HoldReason::Credentials);
    std::fs::write(&path, SECRET).unwrap();
    assert_eq!(output.send(&request(DOCUMENT)).await, Verdict::Accepted { slow_down: false });
    is_signed(&collector.requests().pop().unwrap(), "eu-west-1", "es", &["host"]);
    std::fs::remove_file(&path).unwrap();
    let hold = output.send(&request(DOCUMENT)).await;
    let Verdict::Hold(alarm) = hold else { panic!("{hold:?} is no hold") };
    assert!(alarm.message.contains("aws.secret_access_key"), "{}", alarm.message);
    assert_eq!(collector.count_requests(), 2);
}
