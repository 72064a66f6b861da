//! The inputs `event_hubs` and `kafka`, against a real broker.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rdkafka::producer::Producer;

use crate::broker::{CONNECTION_STRING, STRANGER, TOKEN_SUBJECT, broker, flush, put};
use crate::ferry::{checked, record, succeeded};

mod site;

use site::{MEMORY, PATIENCE, Service, Site, eventually};

/// As Event Hubs is configured, but for the authority.
fn event_hubs(topic: &str, connection_string: &str) -> String {
    let broker = broker();
    format!(
        r#"
        type = "event_hubs"
        topics = ["{topic}"]
        bootstrap_servers = ["{}"]
        connection_string = {connection_string}
        tls.ca_file = "{}"
        session_timeout = "6s"
        "#,
        broker.hubs,
        broker.ca_file.display()
    )
}

fn plain(topic: &str) -> String {
    let servers = &broker().plain;
    format!(
        "type = \"kafka\"\ntopics = [\"{topic}\"]\nbootstrap_servers = [\"{servers}\"]\ntls.enabled = false\nsession_timeout = \"6s\""
    )
}

fn envelope(records: impl IntoIterator<Item = String>) -> String {
    format!(r#"{{"records":[{}]}}"#, records.into_iter().collect::<Vec<_>>().join(","))
}

fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("request-{number:06}")).collect()
}

#[test]
fn envelopes_of_every_compression_are_delivered_once_over_tls_and_a_poison_record_takes_none_along() {
    let topic = "compressions";
    broker().create_topic(topic, 2);
    for (index, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let producer = broker().producer(&[("compression.type", codec)]);
        for message in 0..4 {
            let first = index * 40 + message * 10;
            let text = envelope((first..first + 10).map(record));
            put(&producer, topic, (message % 2).try_into().unwrap(), Some(text.as_bytes()));
        }
        put(&producer, topic, 0, None);
        flush(&producer);
    }
    let producer = broker().producer(&[]);
    let poisoned = envelope([record(200), r#"{"time":"no end}"#.to_owned(), record(201)]);
    put(&producer, topic, 1, Some(poisoned.as_bytes()));
    flush(&producer);
    aborted(topic, &envelope([record(900)]));

    let site = Site::new(&event_hubs(topic, &format!("{CONNECTION_STRING:?}")));
    let (said, ended) = checked(&site.path("auditferry.toml"));
    assert!(
        ended == Some(0) && said.contains("hub (event_hubs): ok: 2 partitions of compressions"),
        "{said}"
    );
    let output = site.once();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "a dead letter: {said}");
    assert_eq!(site.request_ids(), names(0..202), "{said}");
    let letters = std::fs::read_to_string(site.path("state/dead-letters/hub.out.ndjson")).unwrap();
    let letter: serde_json::Value = serde_json::from_str(&letters).expect("one letter");
    assert_eq!(letter["record"], r#"{"time":"no end}"#);
    assert_eq!((&letter["object"], &letter["line"]), (&"compressions/1".into(), &10.into()), "{letter}");
    assert_eq!(site.events()[0]["_source"]["cloud"], "azure");
    succeeded(&site.once());
    assert_eq!(site.request_ids(), names(0..202), "and nothing again");
}

/// Sends a message in a transaction that is aborted.
fn aborted(topic: &str, text: &str) {
    let producer = broker().producer(&[("transactional.id", "aborted")]);
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    put(&producer, topic, 0, Some(text.as_bytes()));
    flush(&producer);
    producer.abort_transaction(PATIENCE).unwrap();
}

#[test]
fn what_a_user_must_mend_is_said_in_a_sentence_that_names_the_key() {
    let topic = "refusals";
    broker().create_topic(topic, 1);
    let wrong =
        "\"Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=b2xk\"";
    Site::new(&event_hubs(topic, wrong)).refused(&["cannot log in to localhost", "`connection_string`"]);
    let right = format!("{CONNECTION_STRING:?}");
    Site::new(&event_hubs("no-such-hub", &right)).refused(&["no-such-hub", "`topics`"]);
    let untrusted = event_hubs(topic, &right).replace("tls.ca_file", "tls.cert_file");
    let untrusted = untrusted.lines().filter(|line| !line.contains("tls.")).collect::<Vec<_>>().join("\n");
    Site::new(&untrusted).refused(&["cannot reach localhost", "`tls`", "certificate"]);
    let (user, password) = STRANGER;
    let (hubs, ca_file) = (&broker().hubs, broker().ca_file.display());
    let stranger = format!(
        r#"
        type = "kafka"
        topics = ["{topic}"]
        bootstrap_servers = ["{hubs}"]
        sasl = {{ username = "{user}", password = "{password}" }}
        tls.ca_file = "{ca_file}"
        "#
    );
    Site::new(&stranger).refused(&["the right Read", "authorization failed"]);
    let open = event_hubs(topic, &right).replace("event_hubs", "kafka") + "tls.enabled = false";
    Site::new(&open).refused(&["cannot reach localhost", "`tls`"]);
}

#[test]
fn a_wrong_secret_holds_the_service_until_it_is_put_right_without_a_restart() {
    let topic = "secrets";
    broker().create_topic(topic, 1);
    let producer = broker().producer(&[]);
    put(&producer, topic, 0, Some(envelope((0..5).map(record)).as_bytes()));
    flush(&producer);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKey=old").unwrap();
    let site = Site::new(&event_hubs(topic, &format!("{{ file = {:?} }}", secret.path())));
    let service = site.start();
    eventually("the refusal is logged", || site.log().contains("cannot log in"));
    let log = site.log();
    assert!(log.contains("`connection_string`") && log.contains("waiting, nothing is lost"), "{log}");
    std::fs::write(secret.path(), CONNECTION_STRING).unwrap();
    eventually("the events arrive", || site.request_ids() == names(0..5));
    eventually("it is said to be right", || site.log().contains("the input can be read again"));
    service.stop();
    // Stopping left the group in order: the next one neither waits for it nor reads anything again.
    succeeded(&site.once());
    assert_eq!(site.request_ids(), names(0..5));
}

#[test]
fn messages_that_expired_unread_are_said_and_the_rest_goes_on() {
    let topic = "expired";
    broker().create_topic(topic, 1);
    let producer = broker().producer(&[]);
    let message = |number: usize| put(&producer, topic, 0, Some(envelope([record(number)]).as_bytes()));
    (0..2).for_each(message);
    flush(&producer);
    let site = Site::new(&plain(topic));
    succeeded(&site.once());
    (2..8).for_each(message);
    flush(&producer);
    broker().expire(topic, 6);
    let output = site.once();
    succeeded(&output);
    assert_eq!(site.request_ids(), names([0, 1, 6, 7]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("messages expired before they were read") && said.contains("offset 2"), "{said}");
}

/// An Entra ID that gives tokens of no signature, as the broker takes them; what it was asked comes back.
pub(crate) fn entra_id() -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        while !asked.contains("grant_type") {
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap();
            asked.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let now = jiff::Timestamp::now().as_second();
        let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        let claims = format!(r#"{{"sub":"{TOKEN_SUBJECT}","iat":{now},"exp":{}}}"#, now + 3600);
        let token = format!("{}.{}.", part(r#"{"alg":"none"}"#.to_owned()), part(claims));
        let body = format!(r#"{{"token_type":"Bearer","expires_in":3600,"access_token":"{token}"}}"#);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        asked
    });
    (address, thread)
}

#[test]
fn a_token_of_entra_id_is_a_login() {
    let topic = "tokens";
    broker().create_topic(topic, 1);
    let producer = broker().producer(&[]);
    put(&producer, topic, 0, Some(envelope((0..5).map(record)).as_bytes()));
    flush(&producer);
    let (authority, asked) = entra_id();
    let azure = format!(
        r#"azure = {{ client_id = "reader", tenant_id = "acme", client_secret = "app-secret", authority_host = "{authority}" }}"#
    );
    let input = event_hubs(topic, "X");
    let input: String = input
        .lines()
        .filter(|line| !line.contains("connection_string"))
        .map(|line| format!("{line}\n"))
        .collect();
    let site = Site::new(&(input + &azure));
    succeeded(&site.once());
    assert_eq!(site.request_ids(), names(0..5));
    let asked = asked.join().unwrap();
    let scope = format!("scope={}", "https%3A%2F%2Flocalhost%2F.default");
    assert!(asked.contains(&scope) && asked.contains("client_secret=app-secret"), "{asked}");
}

const RECORDS: usize = 200_000;
const RECORDS_PER_MESSAGE: usize = 100;

/// Counts request ids in a file that grows.
struct Counter {
    path: PathBuf,
    read: u64,
    rest: Vec<u8>,
}

impl Counter {
    fn of(site: &Site) -> Self {
        Self { path: site.path("events.ndjson"), read: 0, rest: Vec::new() }
    }

    /// Adds what was written since the last look.
    fn look(&mut self, seen: &mut HashMap<usize, usize>) {
        let Ok(mut file) = File::open(&self.path) else { return };
        file.seek(SeekFrom::Start(self.read)).unwrap();
        self.read += file.read_to_end(&mut self.rest).unwrap() as u64;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in self.rest[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = std::str::from_utf8(line).unwrap();
            let (_, after) = line.split_once("\"request_id\":\"request-").expect(line);
            let number: usize = after.split_once('"').unwrap().0.parse().unwrap();
            *seen.entry(number).or_default() += 1;
        }
        self.rest.drain(..whole);
    }
}

/// How often each record is in the files now.
fn count(sites: &[Site]) -> HashMap<usize, usize> {
    let mut seen = HashMap::new();
    sites.iter().for_each(|site| Counter::of(site).look(&mut seen));
    seen
}

#[test]
fn of_two_instances_one_is_killed_and_restarted_in_mid_flow_and_nothing_is_missing() {
    let topic = "three-partitions";
    broker().create_topic(topic, 3);
    let sites = [Site::new(&plain(topic)), Site::new(&plain(topic))];
    let mut services = sites.each_ref().map(Site::start);
    let producing = std::thread::spawn(move || {
        let producer = broker().producer(&[]);
        for message in 0..RECORDS / RECORDS_PER_MESSAGE {
            let first = message * RECORDS_PER_MESSAGE;
            let text = envelope((first..first + RECORDS_PER_MESSAGE).map(record));
            put(&producer, topic, (message % 3).try_into().unwrap(), Some(text.as_bytes()));
        }
        flush(&producer);
    });
    let mut counters = sites.each_ref().map(Counter::of);
    let mut seen = HashMap::new();
    // Both are at it, and have most of their way before them.
    eventually("both deliver", || {
        counters.iter_mut().for_each(|counter| counter.look(&mut seen));
        seen.len() > RECORDS / 10 && counters.iter().all(|counter| counter.read > 0)
    });
    services[0].kill();
    let at_the_kill = seen.len();
    assert!(at_the_kill < RECORDS / 2, "killed too late to mean anything: {at_the_kill}");
    services[0] = sites[0].start();
    eventually("everything arrives", || {
        counters.iter_mut().for_each(|counter| counter.look(&mut seen));
        // What the kill left of a batch is cut off again: only a new count tells what is really there.
        seen.len() >= RECORDS && count(&sites).len() >= RECORDS
    });
    producing.join().unwrap();
    services.into_iter().for_each(Service::stop);
    let seen = count(&sites);
    assert!((0..RECORDS).all(|number| seen.contains_key(&number)) && seen.len() == RECORDS);
    let repeats: usize = seen.values().map(|count| count - 1).sum();
    // One window for the kill, and one for the partitions that move when the instance is back.
    let bytes = repeats * record(0).len();
    println!(
        "killed after {at_the_kill} records; {repeats} repeats of {bytes} bytes, two windows are {}",
        2 * MEMORY
    );
    assert!(bytes <= 2 * MEMORY, "{repeats} repeats, {bytes} bytes");
    sites.iter().for_each(|site| succeeded(&site.once()));
    assert_eq!(count(&sites), seen, "at rest nothing is sent");
}
