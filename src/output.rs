//! The contract of an output: one request, and what came of it.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::batch::{Framing, Request};
use crate::component::BuildError;
use crate::compress::Encoding;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::HttpSettings;

pub mod elastic;
pub mod file;
pub mod http;
pub mod splunk_hec;
pub mod sumo;

/// What came of one request. The engine acts on it; see the table in `pipeline/deliver.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Every event is in.
    Accepted {
        /// The collector nears its limits: send less at once.
        slow_down: bool,
    },
    /// Event by event. Indexes are those of the batch; an index that is named nowhere was accepted.
    Partial {
        /// Were in already: as good as accepted.
        duplicate: Vec<usize>,
        /// To be sent again.
        retry: Vec<usize>,
        /// Refused for their own sake.
        rejected: Vec<(usize, Rejection)>,
        /// How long to wait before the retry.
        after: Option<Duration>,
    },
    /// Accepted, but safe only once the collector says so.
    PendingAck(AckId),
    /// Nothing certain: the same again, later.
    Retry {
        /// What went wrong, without secrets.
        cause: String,
        /// How long the collector asked to wait.
        after: Option<Duration>,
        /// The collector may have taken it: sending it again may duplicate.
        ambiguous: bool,
    },
    /// The body is too large for the collector.
    TooLarge,
    /// Stays refused until a human changes something; nothing is lost, nothing goes on.
    Hold(Alarm),
    /// Refused as it stands: narrow it down to the event that is to blame.
    Rejected(Rejection),
}

/// A collector's promise to tell later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AckId {
    /// Which of the output's connections gave it.
    pub channel: String,
    /// Its number there.
    pub number: u64,
}

/// Why a collector refuses an event for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The collector's reason, bounded and without secrets.
    pub reason: String,
}

/// What a human must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// In one word, for metrics.
    pub reason: HoldReason,
    /// What the collector said and what to do, naming the configuration key.
    pub message: String,
}

/// The kinds of holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldReason {
    /// Token, key or password refused.
    Credentials,
    /// Index, path or tenant not there.
    NotFound,
    /// The collector's or our configuration is at odds with the request.
    Misconfigured,
    /// The collector's disk is full.
    DiskFull,
    /// Our own disk refuses state, dead letters or output.
    Local,
}

impl HoldReason {
    /// All of them, for the metrics.
    pub const ALL: [Self; 5] =
        [Self::Credentials, Self::NotFound, Self::Misconfigured, Self::DiskFull, Self::Local];

    /// As a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::NotFound => "not_found",
            Self::Misconfigured => "misconfigured",
            Self::DiskFull => "disk_full",
            Self::Local => "local",
        }
    }
}

impl Verdict {
    /// A hold.
    pub fn hold(reason: HoldReason, message: impl Into<String>) -> Self {
        Self::Hold(Alarm { reason, message: message.into() })
    }

    /// A retry after an answer: the collector did not take it.
    pub fn retry(cause: impl Into<String>, after: Option<Duration>) -> Self {
        Self::Retry { cause: cause.into(), after, ambiguous: false }
    }

    /// As a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Partial { .. } => "partial",
            Self::PendingAck(_) => "pending_ack",
            Self::Retry { .. } => "retry",
            Self::TooLarge => "too_large",
            Self::Hold(_) => "hold",
            Self::Rejected(_) => "rejected",
        }
    }

    /// All labels.
    pub const LABELS: [&'static str; 7] =
        ["accepted", "partial", "pending_ack", "retry", "too_large", "hold", "rejected"];
}

/// Sends events to a collector.
#[async_trait]
pub trait Output: Send + Sync {
    /// How frames are joined into a body.
    fn framing(&self) -> Framing;

    /// Appends the event as one frame, without the terminator. Pure; cannot fail.
    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        format.encode(event, frame);
    }

    /// Makes one request. No retry, no sleep, no bookkeeping: the engine does that.
    async fn send(&self, request: &Request) -> Verdict;

    /// Asks which of these promises are kept. The rest is still pending.
    async fn acknowledged(&self, _pending: &[AckId]) -> Vec<AckId> {
        Vec::new()
    }

    /// Told on SIGHUP: opens files anew after logrotate moved them.
    async fn reopen(&self) {}
}

/// How an output is fed unless its configuration says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct OutputDefaults {
    /// How events are written.
    pub format: FormatName,
    /// How bodies are compressed.
    pub compression: Encoding,
    /// Compressions the collector takes.
    pub compressions: &'static [Encoding],
    /// Uncompressed bytes of a batch.
    pub max_bytes: u64,
    /// Events of a batch.
    pub max_events: usize,
    /// How long a batch waits to fill.
    pub max_age: Duration,
    /// Requests under way at once.
    pub in_flight: usize,
}

/// What an output is built with, besides its own configuration.
#[derive(Clone, Debug)]
pub struct OutputContext {
    /// Its name in the configuration.
    pub name: String,
    /// Format it will be given.
    pub format: FormatName,
    /// How its connections are made.
    pub http: HttpSettings,
}

/// A kind of output: one row of the registry.
#[derive(Clone, Copy, Debug)]
pub struct OutputKind {
    /// Value of `type`.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// How it is fed.
    pub defaults: OutputDefaults,
    /// Schema of its configuration.
    pub schema: fn() -> schemars::Schema,
    /// Builds it; touches no network.
    pub build: fn(Value, OutputContext) -> Result<Box<dyn Output>, BuildError>,
}
