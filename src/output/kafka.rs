//! Topics of Apache Kafka, or of whatever speaks its protocol, such as Azure Event Hubs.
//!
//! The producer is idempotent: it tries again by itself for `delivery_timeout`, and the broker drops what it has already
//! got, so that a broker which fails or restarts meanwhile gets each event once. Only what is given up after that, or
//! when the producer had to be made anew, may arrive twice, and counts as ambiguous.
//!
//! ```text
//!   Request ──records──► Session (the client and its thread) ──► brokers
//!                          │ one report an event
//!                          └──► verdict: of all reports of the request together
//! ```
//!
//! A session begins with a question to the brokers, before any event is given to it: refused logins and missing topics
//! are told there, where nothing can have been taken. After a failure that the client does not mend by itself the session
//! is given up for a new one, which reads the secrets again.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::component::{BuildError, parse};
use crate::compress::Encoding;
use crate::format::FormatName;
use crate::http::{HttpSettings, TlsVersion};
use crate::kafka::{self, Azure, Login, LoginKeys, MAX_TOPIC_BYTES, Sasl, Tls};
use crate::output::{BatchMost, Output, OutputContext, OutputDefaults, OutputKind};
use crate::secret::Secret;
use crate::template::Template;
use crate::units::Period;

#[cfg(feature = "kafka")]
mod producer;
#[cfg(feature = "kafka")]
mod record;
#[cfg(feature = "kafka")]
mod session;
#[cfg(feature = "kafka")]
mod verdict;

/// Kafka.
pub const KIND: OutputKind = OutputKind {
    name: "kafka",
    about: "Topics of Apache Kafka or of whatever speaks its protocol, such as Azure Event Hubs",
    defaults: OutputDefaults {
        format: FormatName::Canonical,
        // The client compresses what it sends to each partition: see `codec`.
        compression: Encoding::None,
        compressions: &[Encoding::None],
        max_bytes: 1_000_000,
        max_events: 5_000,
        most: Some(BatchMost {
            bytes: 16 << 20,
            events: None,
            why: "the client's queue of 64 MiB has to hold several",
        }),
        max_age: Duration::from_secs(1),
        in_flight: 2,
    },
    schema: || schemars::schema_for!(Config),
    build,
};

/// `type = "kafka"`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Topic of each event; a template, as `audit-{workspace_id}`. What may not stand in a topic's name becomes `_`.
    topic: Template,
    /// Brokers to ask first, as `host:port`. May be left out where `connection_string` names the namespace.
    #[serde(default)]
    #[schemars(extend("examples" = [["kafka-1.example:9093"]]))]
    bootstrap_servers: Vec<String>,
    /// Key of each message; a template. Messages of the same key go to the same partition, and of a compacted topic one
    /// of them stays. `""` sends none.
    #[serde(default = "default_key")]
    key: Template,
    /// Headers of each message: names with templates.
    #[serde(default = "default_headers")]
    headers: BTreeMap<String, Template>,
    /// How the client compresses. Default: `gzip` at Event Hubs, which takes no other; else `zstd`.
    #[serde(default)]
    #[schemars(extend("examples" = ["zstd"]))]
    codec: Option<Codec>,
    /// Whether brokers that are set up so may make a topic that is not there. Default false: a misspelt topic holds.
    #[serde(default)]
    create_topics: bool,
    /// How long the client tries to deliver an event before it tells, `5s` to `1h`. Within that no event arrives twice;
    /// what was given up is sent again and may.
    #[serde(default = "default_delivery_timeout")]
    delivery_timeout: Period,
    /// Connects without TLS. Default false; everything is then readable on the way.
    #[serde(default)]
    plaintext: bool,
    /// User and password.
    #[serde(default)]
    sasl: Sasl,
    /// Event Hubs: connection string of a shared access policy with the right Send, in place of `sasl`. Or the identity in
    /// `azure` logs in: `azure = {}` is that of the environment, of the pod or of the machine.
    #[serde(default)]
    connection_string: Option<Secret>,
    /// Event Hubs: the identity of Entra ID that sends, with the role Azure Event Hubs Data Sender; `{}` is that of the
    /// environment, of the pod or of the machine. Default: none, `sasl` or `connection_string` logs in.
    #[serde(default)]
    azure: Option<Azure>,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Codec {
    /// Not at all.
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard; brokers know it since Kafka 2.1.
    Zstd,
}

fn default_key() -> Template {
    Template::parse("{event_id}").unwrap_or_default()
}

fn default_headers() -> BTreeMap<String, Template> {
    BTreeMap::from([("event_id".to_owned(), default_key())])
}

fn default_delivery_timeout() -> Period {
    Period(Duration::from_secs(120))
}

/// What a configuration comes to.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "checked, and used by nobody"))]
struct Plan {
    topic: Template,
    key: Template,
    headers: Vec<(String, Template)>,
    servers: Vec<String>,
    login: Login,
    tls: Tls,
    codec: Codec,
    create_topics: bool,
    delivery_timeout: Duration,
    /// Longest wait for one answer of a broker.
    timeout: Duration,
}

impl Plan {
    fn new(config: Config, http: &HttpSettings) -> Result<Self, BuildError> {
        let Config { topic, sasl, connection_string, azure, delivery_timeout, .. } = config;
        check_topic(&topic)?;
        let delivery = Duration::from_secs(5)..=Duration::from_secs(3600);
        if !delivery.contains(&delivery_timeout.0) {
            return Err(BuildError::new("delivery_timeout", "must be \"5s\" to \"1h\""));
        }
        if azure.is_some() && connection_string.is_some() {
            return Err(BuildError::new("azure", "must be left out beside connection_string"));
        }
        let servers = kafka::servers(&config.bootstrap_servers, connection_string.as_ref())?;
        let keys =
            LoginKeys { connection_string: connection_string.as_ref(), sasl: &sasl, azure: azure.as_ref() };
        let login = keys.login(&servers)?;
        let hubs = servers.iter().any(|server| server.contains(".servicebus."));
        let codec = config.codec.unwrap_or(if hubs { Codec::Gzip } else { Codec::Zstd });
        if hubs && !matches!(codec, Codec::None | Codec::Gzip) {
            return Err(BuildError::new("codec", "must be \"gzip\" or \"none\": Event Hubs takes no other"));
        }
        Ok(Self {
            topic,
            key: config.key,
            headers: config.headers.into_iter().collect(),
            servers,
            login,
            tls: tls(http, !config.plaintext)?,
            codec,
            create_topics: config.create_topics,
            delivery_timeout: delivery_timeout.0,
            timeout: http.timeout.0,
        })
    }
}

/// Of the keys that every output has, those that this client can heed.
fn tls(http: &HttpSettings, enabled: bool) -> Result<Tls, BuildError> {
    if http.proxy.as_deref().is_some_and(|proxy| proxy != "none") {
        return Err(BuildError::new(
            "proxy",
            "must be left out: Kafka's protocol goes through no HTTP proxy",
        ));
    }
    let tls = &http.tls;
    if tls.min_version != TlsVersion::default() {
        let message = "must be left out: the Kafka client speaks 1.2 or later, and takes no other bound";
        return Err(BuildError::new("tls.min_version", message));
    }
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        let message = "must be given both cert_file and key_file, or none of them";
        return Err(BuildError::new("tls", message));
    }
    Ok(Tls {
        enabled,
        ca_file: tls.ca_file.clone(),
        cert_file: tls.cert_file.clone(),
        key_file: tls.key_file.clone(),
        insecure: tls.insecure,
    })
}

fn check_topic(topic: &Template) -> Result<(), BuildError> {
    let refused = |message: String| Err(BuildError::new("topic", message));
    let text = topic.as_str();
    if let Some(place) = ["{event_id}", "{object}"].iter().find(|place| text.contains(**place)) {
        return refused(format!("{place} would make a topic of nearly every event"));
    }
    // What is between braces is a place: the template was parsed.
    let mut within = false;
    let fits = |c: char| match c {
        '{' | '}' => {
            within = c == '{';
            true
        }
        _ => within || kafka::is_of_topic(c),
    };
    if text.is_empty() || matches!(text, "." | "..") || !text.chars().all(fits) {
        return refused(format!("`{text}` is no name of a topic: letters, digits, `.`, `_` and `-`"));
    }
    if topic.fixed().is_some_and(|text| text.len() > MAX_TOPIC_BYTES) {
        return refused(format!("is longer than the {MAX_TOPIC_BYTES} characters that a topic may have"));
    }
    Ok(())
}

#[cfg(not(feature = "kafka"))]
fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    Plan::new(parse(table)?, &context.http)?;
    Err(kafka::missing())
}

#[cfg(feature = "kafka")]
fn build(table: Value, context: OutputContext) -> Result<Box<dyn Output>, BuildError> {
    let plan = Plan::new(parse(table)?, &context.http)?;
    Ok(Box::new(producer::Kafka::new(plan)))
}

#[cfg(test)]
mod tests;
