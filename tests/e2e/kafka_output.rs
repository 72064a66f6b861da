//! The output `kafka`, against a real broker.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use auditferry::dead_letter::file as dead_letters;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

use crate::broker::{Broker, CONNECTION_STRING, STRANGER, broker};
use crate::ferry::{Ferry, checked, content, eventually, name, record, succeeded};
use crate::kafka::entra_id;

/// Longest wait for a message that is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bucket in a directory, and what ships it to a topic.
struct Site {
    ferry: Ferry,
    bucket: tempfile::TempDir,
}

impl Site {
    /// Sends to this topic; `output` holds further lines of the output's table.
    fn new(topic: &str, output: &str) -> Self {
        let bucket = tempfile::tempdir().unwrap();
        let table = format!("[outputs.out]\ntype = \"kafka\"\ntopic = \"{topic}\"\n{output}\n");
        let ferry = Ferry::configured(&bucket.path().display().to_string(), "poll_interval = \"1s\"", &table);
        Self { ferry, bucket }
    }

    fn deliver(&self, object: &str, lines: &str) {
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
        let folder = self.bucket.path().join(format!("workspaceId=1/date={date}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("auditlogs_{object}.json")), lines).unwrap();
    }

    fn once(&self) -> Output {
        self.ferry.run_with(&[])
    }

    /// Ends with an error, and says this of it.
    fn refused(&self, needles: &[&str]) {
        let output = self.once();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(needles.iter().all(|needle| said.contains(needle)), "{needles:?}: {said}");
        assert!(!said.contains("SharedAccessKey="), "{said}");
    }

    /// The dead letters: record, and the broker's reason.
    fn letters(&self) -> Vec<(String, String)> {
        let files = dead_letters::list(&self.ferry.directory.path().join("state")).unwrap();
        let letters = files.iter().flat_map(|file| dead_letters::read(&file.path).unwrap());
        letters
            .map(|kept| kept.unwrap().letter)
            .map(|letter| (String::from_utf8(letter.record.to_vec()).unwrap(), letter.detail))
            .collect()
    }
}

fn plain(broker: &Broker) -> String {
    format!("bootstrap_servers = [\"{}\"]\nplaintext = true", broker.plain)
}

/// As Event Hubs is configured, but for the authority.
fn hubs(login: &str) -> String {
    hubs_of(broker(), login)
}

fn hubs_of(broker: &Broker, login: &str) -> String {
    format!(
        "bootstrap_servers = [\"{}\"]\ntls.ca_file = \"{}\"\n{login}",
        broker.hubs,
        broker.ca_file.display()
    )
}

/// How many messages lie in a topic.
fn length(broker: &Broker, topic: &str, partitions: i32) -> usize {
    let producer = broker.producer(&[]);
    let client = rdkafka::producer::Producer::client(&producer);
    let ends = (0..partitions).map(|partition| client.fetch_watermarks(topic, partition, PATIENCE));
    ends.map(|marks| marks.map_or(0, |(_, end)| usize::try_from(end).unwrap())).sum()
}

/// The request ids in a topic with how often they are there; key and header are those of the event.
fn stored(broker: &Broker, topic: &str, partitions: i32) -> BTreeMap<String, usize> {
    let mut client = ClientConfig::new();
    let client = client
        .set("bootstrap.servers", &broker.plain)
        .set("group.id", "test")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let (mut found, mut ended) = (BTreeMap::new(), 0);
    while ended < partitions {
        let Some(Ok(message)) = consumer.poll(PATIENCE) else {
            ended += 1;
            continue;
        };
        let event: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(event["event_id"].as_str().map(str::as_bytes), message.key());
        *found.entry(event["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    found
}

fn each_once(numbers: impl IntoIterator<Item = usize>) -> BTreeMap<String, usize> {
    numbers.into_iter().map(|number| (name(number), 1)).collect()
}

/// Fails unless each of so many records is there once.
fn assert_once(found: &BTreeMap<String, usize>, records: usize) {
    let repeated: Vec<_> = found.iter().filter(|(_, count)| **count != 1).take(5).collect();
    assert!(
        repeated.is_empty() && found.len() == records,
        "{} records, repeated {repeated:?} …",
        found.len()
    );
}

#[test]
fn a_broker_that_is_killed_and_restarted_in_mid_flow_gets_every_event_once() {
    const EVENTS: usize = 100_000;
    let mut broker = Broker::start();
    broker.create_topic("restart", 3);
    let site = Site::new("restart", &format!("{}\nbatch.max_events = 200", plain(&broker)));
    for object in 0..10 {
        let numbers: Vec<usize> = (object * EVENTS / 10..(object + 1) * EVENTS / 10).collect();
        site.deliver(&object.to_string(), &content(&numbers));
    }
    let running = site.ferry.start();
    eventually("it is in mid-flow", || length(&broker, "restart", 3) > EVENTS / 20);
    let before = length(&broker, "restart", 3);
    broker.kill();
    broker.restart();
    let after = length(&broker, "restart", 3);
    eventually("all events arrive", || length(&broker, "restart", 3) >= EVENTS);
    let log = running.log();
    running.stop();
    println!("killed after {before} of {EVENTS} events, {after} were on disk");
    assert!(after < EVENTS, "killed too late to mean anything");
    assert_once(&stored(&broker, "restart", 3), EVENTS);
    assert!(!log.contains("trying again"), "the client bridges it by itself: {log}");
}

#[test]
fn an_event_that_the_broker_finds_too_large_is_a_dead_letter_and_no_other_is() {
    let broker = broker();
    // As large as record batches are by default; and so small that whole batches are refused first.
    for (topic, most, events) in [("large", 1_048_588, 5_000), ("tiny", 20_000, 300)] {
        broker.create_topic_with(topic, 2, &[("max.message.bytes", &most.to_string())]);
        let site = Site::new(topic, &format!("{}\ncodec = \"none\"", plain(broker)));
        let large = record(events).replace("nightly-load", &"x".repeat(most + 1000));
        let (first, second): (Vec<usize>, Vec<usize>) = (0..events).partition(|number| *number < events / 3);
        site.deliver("a", &format!("{}{large}\n{}", content(&first), content(&second)));
        let output = site.once();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(stored(broker, topic, 2), each_once(0..events));
        let letters = site.letters();
        assert_eq!(letters.len(), 1, "{topic}");
        let (kept, detail) = &letters[0];
        assert!(*kept == large && detail.contains("too large"), "{detail}");
    }
}

#[test]
fn a_topic_that_is_not_there_holds_until_it_is_made() {
    let site = Site::new("made-later", &plain(broker()));
    site.deliver("a", &content(&(0..500).collect::<Vec<_>>()));
    let running = site.ferry.start();
    eventually("the hold is logged", || running.log().contains("make the topic made-later"));
    assert!(running.log().contains("waiting, nothing is lost"), "{}", running.log());
    broker().create_topic("made-later", 1);
    eventually("the events arrive", || length(broker(), "made-later", 1) >= 500);
    eventually("it is said to be right", || running.log().contains("the collector takes events again"));
    running.stop();
    assert_eq!(stored(broker(), "made-later", 1), each_once(0..500));
    assert_eq!(site.letters(), []);
}

#[test]
fn every_way_to_log_in_delivers_over_tls() {
    broker().create_topic("logins", 1);
    let (authority, asked) = entra_id();
    let azure = format!(
        "azure = {{ client_id = \"sender\", tenant_id = \"acme\", client_secret = \"app-secret\", \
         authority_host = \"{authority}\" }}"
    );
    let user = format!("sasl = {{ username = \"$ConnectionString\", password = {CONNECTION_STRING:?} }}");
    let logins = [format!("connection_string = {CONNECTION_STRING:?}"), azure, user];
    let codecs = ["gzip", "zstd", "lz4"];
    for (number, (login, codec)) in logins.iter().zip(codecs).enumerate() {
        let site = Site::new("logins", &format!("{}\ncodec = \"{codec}\"", hubs(login)));
        site.deliver("a", &content(&[number]));
        succeeded(&site.once());
    }
    assert!(asked.join().unwrap().contains("scope=https%3A%2F%2Flocalhost%2F.default"));
    assert_eq!(stored(broker(), "logins", 1), each_once(0..3));
}

#[test]
fn what_a_user_must_mend_is_said_in_a_sentence_that_names_the_key() {
    broker().create_topic("refusing", 1);
    let site = |output: &str| {
        let site = Site::new("refusing", output);
        site.deliver("a", &content(&[1]));
        site
    };
    let wrong = "connection_string = \"Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKey=b2xk\"";
    site(&hubs(wrong)).refused(&["cannot log in to localhost", "`connection_string`"]);
    let (user, password) = STRANGER;
    let stranger = hubs(&format!("sasl = {{ username = \"{user}\", password = \"{password}\" }}"));
    site(&stranger).refused(&["the right Write", "topic refusing"]);
    assert_eq!(length(broker(), "refusing", 1), 0);
    // And by `check --connect`.
    let right = format!("connection_string = {CONNECTION_STRING:?}");
    for (output, code, needles) in [
        (hubs(&right), 0, ["ok: the topic refusing has 1 partitions", "only events show"]),
        (hubs(wrong), 1, ["FAILED: cannot log in to localhost", "`connection_string`"]),
        (stranger, 1, ["FAILED: localhost", "the right Write"]),
        (hubs(&right).replace("tls.ca_file", "timeout = \"3s\"\n#"), 1, ["cannot reach", "`tls.ca_file`"]),
        (hubs(&right) + "\nplaintext = true\ntimeout = \"3s\"", 1, ["cannot reach", "`plaintext`"]),
        (
            "plaintext = true\ntimeout = \"3s\"\nbootstrap_servers = [\"127.0.0.1:1\"]".to_owned(),
            1,
            ["cannot reach 127.0.0.1:1", "`bootstrap_servers`"],
        ),
    ] {
        let site = site(&output);
        let (said, ended) = checked(&site.ferry.directory.path().join("auditferry.toml"));
        assert_eq!(ended, Some(code), "{said}");
        assert!(needles.iter().all(|needle| said.contains(needle)), "{needles:?}: {said}");
        assert!(!said.contains("SharedAccessKey="), "{said}");
    }
}

#[test]
fn a_wrong_secret_holds_the_service_until_it_is_put_right_without_a_restart() {
    broker().create_topic("rotated", 1);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKey=old").unwrap();
    let site = Site::new("rotated", &hubs(&format!("connection_string = {{ file = {:?} }}", secret.path())));
    site.deliver("a", &content(&(0..50).collect::<Vec<_>>()));
    let running = site.ferry.start();
    eventually("the refusal is logged", || running.log().contains("cannot log in"));
    std::fs::write(secret.path(), CONNECTION_STRING).unwrap();
    eventually("the events arrive", || length(broker(), "rotated", 1) >= 50);
    eventually("it is said to be right", || running.log().contains("the collector takes events again"));
    running.stop();
    assert_eq!(stored(broker(), "rotated", 1), each_once(0..50));
}

#[test]
fn a_secret_that_is_revoked_in_mid_flow_and_replaced_later_loses_and_doubles_nothing() {
    let mut broker = Broker::start();
    broker.create_topic("revoked", 1);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), CONNECTION_STRING).unwrap();
    let login = format!("connection_string = {{ file = {:?} }}", secret.path());
    let site = Site::new("revoked", &hubs_of(&broker, &login));
    site.deliver("a", &content(&(0..500).collect::<Vec<_>>()));
    let running = site.ferry.start();
    // Acknowledged, not only stored: what is stored when the broker is killed and not acknowledged is sent again.
    eventually("the first events are delivered", || running.metric("events_delivered_total") == 500);
    let renewed = CONNECTION_STRING.replace("c2VjcmV0", "cmVuZXdlZA");
    broker.restart_with(&renewed);
    // They are with the client already when it turns out that its login is refused.
    site.deliver("b", &content(&(500..1000).collect::<Vec<_>>()));
    eventually("the refusal is logged", || running.log().contains("cannot log in"));
    std::fs::write(secret.path(), &renewed).unwrap();
    eventually("the rest arrives", || length(&broker, "revoked", 1) >= 1000);
    running.stop();
    assert_eq!(stored(&broker, "revoked", 1), each_once(0..1000));
    assert_eq!(site.letters(), []);
}
