//! The client and what it calls back: from the first word with the brokers to its end.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::record::Record;
use super::verdict::{alarm, is_of_login};
use super::{Codec, Plan};
use crate::azure_token::AzureToken;
use crate::kafka::{self, Login};
use crate::output::{HoldReason, Verdict};

/// Bytes that the client puts into one record batch. A larger message has a batch of its own.
pub(super) const BATCH_BYTES: usize = 1_000_000;
/// Largest message that is given to the client: brokers close connections over requests of 100 MiB.
pub(super) const MOST_BYTES: usize = 64 << 20;
/// The client's queue, which copies what it is given.
const QUEUE_KIB: usize = 64 << 10;
/// How long messages gather for a record batch. All of a request come at once.
const LINGER_MS: u32 = 5;
/// How long the client looks for a topic that it does not know before its messages fail.
const TOPIC_WAIT: Duration = Duration::from_secs(10);
/// Longest pause before a broker is tried again.
const RECONNECT_MS: u32 = 3_000;
/// One question of several, while a session begins.
const QUESTION: Duration = Duration::from_secs(1);
/// A login that is refused for so long, while nothing is delivered, is not just a broker that restarts.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// What came of an event.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) index: usize,
    /// None if it is in.
    pub(super) failed: Option<Code>,
}

/// Goes along with an event, and comes back with its report.
pub(super) struct Ticket {
    pub(super) index: usize,
    /// With room for every event of the request.
    pub(super) reports: mpsc::Sender<Report>,
}

/// An error that is about no event.
#[derive(Clone, Debug)]
struct Complaint {
    code: Code,
    reason: String,
}

/// What the client calls back, from its own threads.
struct Calls {
    token: Option<Arc<AzureToken>>,
    runtime: Handle,
    complaint: Mutex<Option<Complaint>>,
    /// Since when the login is refused and nothing is delivered.
    refused: Mutex<Option<Instant>>,
}

impl ClientContext for Calls {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes as an error or with a report too.
        tracing::debug!("librdkafka {facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        tracing::debug!("Kafka client: {reason}");
        let mut complaint = lock(&self.complaint);
        // That all brokers are gone says less than why the last one was.
        if code != Code::AllBrokersDown || complaint.is_none() {
            *complaint = Some(Complaint { code, reason: reason.to_owned() });
        }
        if is_of_login(code) {
            lock(&self.refused).get_or_insert_with(Instant::now);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        kafka::oauth_token(self.token.as_deref(), &self.runtime)
    }
}

impl ProducerContext for Calls {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let failed = result.as_ref().err().map(|(error, _)| code_of(error));
        if failed.is_none() {
            *lock(&self.refused) = None;
        }
        // Nobody listens any more where the pipeline was stopped meanwhile.
        let _ = ticket.reports.try_send(Report { index: ticket.index, failed });
    }
}

fn code_of(error: &KafkaError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Unknown)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A producer that has spoken to a broker.
pub(super) struct Session {
    producer: ThreadedProducer<Calls>,
}

impl Session {
    /// Connects, and asks for the topic where it is always the same. Blocks. Nothing can have been taken if it fails.
    ///
    /// # Errors
    /// The verdict on whatever was to be sent.
    pub(super) fn begin(plan: &Plan, runtime: Handle) -> Result<(Self, String), Verdict> {
        let session = Self { producer: producer(plan, runtime)? };
        let seen = session.meet(plan)?;
        Ok((session, seen))
    }

    /// Waits for an answer of a broker; what was seen of the topic, in words.
    fn meet(&self, plan: &Plan) -> Result<String, Verdict> {
        let client = self.producer.client();
        let until = Instant::now() + plan.timeout;
        loop {
            let Some(topic) = plan.topic.fixed() else {
                if client.fetch_cluster_id(QUESTION).is_some() {
                    return Ok("a broker answers; topics show with the events".to_owned());
                }
                self.still_waits(plan, until)?;
                continue;
            };
            match client.fetch_metadata(Some(topic), QUESTION) {
                Ok(metadata) => {
                    let found = metadata.topics().iter().find(|found| found.name() == topic);
                    let code = found.and_then(|found| found.error()).map(Code::from);
                    // A topic that may be made on demand is there when the first event has come.
                    let missing = matches!(code, Some(Code::UnknownTopicOrPartition)) && plan.create_topics;
                    if let Some(verdict) = code.filter(|_| !missing).and_then(|code| alarm(code, topic, plan))
                    {
                        return Err(verdict);
                    }
                    let partitions = found.map_or(0, |found| found.partitions().len());
                    return Ok(format!("the topic {topic} has {partitions} partitions"));
                }
                Err(error) => {
                    if let Some(verdict) = alarm(code_of(&error), topic, plan) {
                        return Err(verdict);
                    }
                }
            }
            self.still_waits(plan, until)?;
        }
    }

    /// An error once it is known that no broker will answer, or no longer waited for.
    fn still_waits(&self, plan: &Plan, until: Instant) -> Result<(), Verdict> {
        let servers = plan.servers.join(", ");
        let complaint = lock(&self.producer.context().complaint).clone();
        match complaint {
            Some(Complaint { code, reason }) if is_of_login(code) => {
                let advice = plan.login.remedy();
                let message = format!("cannot log in to {servers}: {reason}; check {advice}");
                Err(Verdict::hold(HoldReason::Credentials, message))
            }
            _ if Instant::now() < until => Ok(()),
            complaint => {
                let (code, reason) = match complaint {
                    Some(Complaint { code, reason }) => (code, reason),
                    None => (Code::OperationTimedOut, "no answer".to_owned()),
                };
                let advice = match code {
                    Code::SSL => "check `tls.ca_file`, and `plaintext` where the port speaks no TLS",
                    _ => "check `bootstrap_servers`, `plaintext` and what lies between",
                };
                Err(Verdict::retry(format!("cannot reach {servers}: {reason}; {advice}"), None))
            }
        }
    }

    /// Gives the client an event; it copies it.
    ///
    /// # Errors
    /// Why the client does not take it.
    pub(super) fn put(
        &self,
        topic: &str,
        record: &Record<'_>,
        plan: &Plan,
        ticket: Ticket,
    ) -> Result<(), Code> {
        let mut message = BaseRecord::with_opaque_to(topic, Box::new(ticket)).payload(record.document);
        if !record.key.is_empty() {
            message = message.key(record.key);
        }
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for ((key, _), value) in plan.headers.iter().zip(&record.headers) {
                headers = headers.insert(Header { key, value: Some(*value) });
            }
            message = message.headers(headers);
        }
        self.producer.send(message).map_err(|(error, _)| code_of(&error))
    }

    /// Gives back what waits in vain because the login is refused. What is on its way stays: it may arrive.
    pub(super) fn purge_if_refused(&self) {
        let refused = *lock(&self.producer.context().refused);
        if refused.is_some_and(|since| since.elapsed() > REFUSED_FOR) {
            self.producer.purge(PurgeConfig::default().queue());
        }
    }

    /// True if nothing more can be sent with it.
    pub(super) fn is_over(&self) -> bool {
        self.producer.client().fatal_error().is_some()
    }
}

fn producer(plan: &Plan, runtime: Handle) -> Result<ThreadedProducer<Calls>, Verdict> {
    let Plan { servers, login, tls, .. } = plan;
    let mut client = kafka::client(servers, login, tls).map_err(|error| {
        let message = format!("cannot log in to {}: {error}; check {}", servers.join(", "), login.remedy());
        Verdict::hold(HoldReason::Credentials, message)
    })?;
    // Before the events' own time is up: that would not tell that it is the topic.
    let topic_wait = TOPIC_WAIT.min(plan.delivery_timeout / 2);
    let codec = match plan.codec {
        Codec::None => "none",
        Codec::Gzip => "gzip",
        Codec::Snappy => "snappy",
        Codec::Lz4 => "lz4",
        Codec::Zstd => "zstd",
    };
    for (key, value) in [
        // Also means acknowledgements of all replicas in sync, and retries that do not end before the time is up.
        ("enable.idempotence", "true".to_owned()),
        ("message.timeout.ms", plan.delivery_timeout.as_millis().to_string()),
        ("request.timeout.ms", plan.timeout.as_millis().to_string()),
        ("socket.timeout.ms", plan.timeout.as_millis().to_string()),
        ("reconnect.backoff.max.ms", RECONNECT_MS.to_string()),
        ("compression.type", codec.to_owned()),
        ("linger.ms", LINGER_MS.to_string()),
        ("batch.size", BATCH_BYTES.to_string()),
        // How much is too much is the broker's to say.
        ("message.max.bytes", MOST_BYTES.to_string()),
        ("queue.buffering.max.kbytes", QUEUE_KIB.to_string()),
        ("queue.buffering.max.messages", "0".to_owned()),
        ("allow.auto.create.topics", plan.create_topics.to_string()),
        ("topic.metadata.propagation.max.ms", topic_wait.as_millis().to_string()),
        // That of the clients in Java: whoever else writes to the topic uses the same partition for a key.
        ("partitioner", "murmur2_random".to_owned()),
    ] {
        client.set(key, value);
    }
    if matches!(plan.codec, Codec::Gzip | Codec::Zstd) {
        // As everywhere here: more costs more CPU than it saves bytes.
        client.set("compression.level", "1");
    }
    let token = if let Login::Azure(token) = login { Some(Arc::clone(token)) } else { None };
    let calls = Calls { token, runtime, complaint: Mutex::default(), refused: Mutex::default() };
    client.create_with_context(calls).map_err(|error: KafkaError| {
        Verdict::hold(
            HoldReason::Misconfigured,
            format!("cannot set up the Kafka client: {error}; check `tls` and its files"),
        )
    })
}
