//! The contract of an output: one request, and what came of it.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::{Framing, Request};
use crate::component::{BuildError, Probe};
use crate::compress::Encoding;
use crate::event::AuditEvent;
use crate::format::{Format, FormatName};
use crate::http::{Answer, HttpSettings, NoAnswer, Shown};
use crate::secret::{LastTaken, blot_out};

pub mod datadog;
pub mod elastic;
pub mod file;
pub mod google_secops;
pub mod http;
pub mod kafka;
pub mod loki;
pub mod nowhere;
pub mod otlp;
pub mod sentinel;
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
    /// Every event is in, and the collector has something to say that a human should read.
    AcceptedWithRemark(String),
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
        /// The collector may have taken those that are sent again: that may duplicate.
        ambiguous: bool,
    },
    /// Accepted, but safe only once the collector says so.
    PendingAck {
        /// What to ask for.
        ack: AckId,
        /// The collector nears its limits: send less at once.
        slow_down: bool,
    },
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
    /// The collector did not wait for the end of the body, and may have taken a part of it: smaller bodies, again.
    TooSlow {
        /// What it said, without secrets.
        cause: String,
    },
    /// Stays refused until a human changes something; nothing is lost, nothing goes on.
    Hold(Alarm),
    /// Refused as it stands: narrow it down to the event that is to blame.
    Rejected(Rejection),
}

/// A collector's promise to tell later. All of it is needed to ask: servers behind one address number alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AckId {
    /// Address of the server that gave it.
    pub endpoint: String,
    /// The channel it was given on.
    pub channel: String,
    /// Cookies by which a load balancer finds the server again; empty without any.
    pub cookies: String,
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
    /// Our own disk refuses the output.
    Local,
    /// Our own disk refuses the state or the dead letters.
    State,
    /// The input cannot be read.
    Input,
}

impl HoldReason {
    /// Those that an output can give.
    pub const OF_OUTPUTS: [Self; 5] =
        [Self::Credentials, Self::NotFound, Self::Misconfigured, Self::DiskFull, Self::Local];

    /// All of them, for the metrics.
    pub const ALL: [Self; 7] = [
        Self::Credentials,
        Self::NotFound,
        Self::Misconfigured,
        Self::DiskFull,
        Self::Local,
        Self::State,
        Self::Input,
    ];

    /// As a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::NotFound => "not_found",
            Self::Misconfigured => "misconfigured",
            Self::DiskFull => "disk_full",
            Self::Local => "local",
            Self::State => "state",
            Self::Input => "input",
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

    /// A refusal for the events' own sake.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::Rejected(Rejection { reason: reason.into() })
    }

    /// What an HTTP status means where the collector's protocol gives it no meaning of its own.
    pub fn from_status(answer: &Answer) -> Self {
        let said = answer.summary();
        let misconfigured = |advice: &str| Self::hold(HoldReason::Misconfigured, format!("{said}; {advice}"));
        match answer.status {
            // A sign-in or a block page: whether there was a collector behind it, nobody knows. To send once more is no loss.
            200..=299 if answer.is_page() => misconfigured(
                "no collector answers with a page: something in between did, check `url` and proxies",
            ),
            200..=299 => Self::Accepted { slow_down: false },
            300..=399 => misconfigured(
                "a collector does not redirect: check the host and port of `url` (8000 is Splunk's web page, 8088 its HEC)",
            ),
            400 | 422 => Self::rejected(said),
            401 | 403 => Self::hold(
                HoldReason::Credentials,
                format!("{said}; check the credentials of this output, and what they are allowed to do"),
            ),
            404 | 410 => Self::hold(HoldReason::NotFound, format!("{said}; check the path of `url`")),
            413 => Self::TooLarge,
            425 | 429 | 503 => Self::retry(said, answer.retry_after),
            // A time-out and a gateway's error leave open what became of the request behind them.
            408 | 500..=599 => Self::Retry { cause: said, after: answer.retry_after, ambiguous: true },
            400..=499 => misconfigured("the collector does not take this kind of request: check `url`"),
            _ => Self::Retry { cause: said, after: answer.retry_after, ambiguous: true },
        }
    }

    /// What a verdict on a question, not on events, says: `ready` where it was answered.
    pub fn into_probe(self, ready: &str) -> Probe {
        match self {
            Self::Hold(alarm) => Probe::Failed(alarm.message),
            Self::Retry { cause, .. } | Self::TooSlow { cause } => Probe::Failed(cause),
            Self::Rejected(rejection) => Probe::Failed(rejection.reason),
            Self::AcceptedWithRemark(remark) => Probe::Ready(format!("{ready}; it remarks: {remark}")),
            _ => Probe::Ready(ready.to_owned()),
        }
    }

    /// Learns from the verdict which of the secrets that went with the request the collector knows. One that it refuses is no
    /// reason to hold while there is another, of before or after a rotation, to try.
    pub fn rotated(self, shown: &[Shown<'_>]) -> Self {
        match self {
            Self::Hold(alarm) if alarm.reason == HoldReason::Credentials => {
                let mut another = false;
                for (secret, text) in shown {
                    another |= secret.refused(text);
                }
                match another {
                    true => Self::retry(
                        format!("{}; meanwhile what was configured before is tried", alarm.message),
                        None,
                    ),
                    false => Self::Hold(alarm),
                }
            }
            Self::Accepted { .. }
            | Self::AcceptedWithRemark(_)
            | Self::Partial { .. }
            | Self::PendingAck { .. } => {
                for (secret, text) in shown {
                    secret.accepted(text);
                }
                self
            }
            verdict => verdict,
        }
    }

    /// Learns from the verdict on an answer whether the collector knows the access token that went with the request. A token
    /// that it took before and knows no more is no reason to hold before a new one was tried.
    pub fn renewed(self, answer: &Answer, token: &str, taken: &LastTaken) -> Self {
        match self {
            Self::Hold(alarm) if answer.status == 401 && taken.refused(token) => {
                Self::retry(format!("{}; meanwhile a new access token is fetched", alarm.message), None)
            }
            verdict => {
                if answer.is_success() {
                    taken.accepted(token);
                }
                verdict
            }
        }
    }

    /// The same verdict with these secrets blotted out of its texts: a collector may repeat what it was sent.
    pub fn redacted(mut self, secrets: &[&str]) -> Self {
        let blot = |text: &mut String| {
            secrets.iter().for_each(|secret| blot_out(secret, text));
        };
        match &mut self {
            Self::Retry { cause, .. } | Self::TooSlow { cause } | Self::AcceptedWithRemark(cause) => {
                blot(cause);
            }
            Self::Hold(alarm) => blot(&mut alarm.message),
            Self::Rejected(rejection) => blot(&mut rejection.reason),
            Self::Partial { rejected, .. } => {
                rejected.iter_mut().for_each(|(_, rejection)| blot(&mut rejection.reason));
            }
            Self::Accepted { .. } | Self::PendingAck { .. } | Self::TooLarge => {}
        }
        self
    }

    /// As a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } | Self::AcceptedWithRemark(_) => "accepted",
            Self::Partial { .. } => "partial",
            Self::PendingAck { .. } => "pending_ack",
            Self::Retry { .. } => "retry",
            Self::TooLarge => "too_large",
            Self::TooSlow { .. } => "too_slow",
            Self::Hold(_) => "hold",
            Self::Rejected(_) => "rejected",
        }
    }

    /// All labels.
    pub const LABELS: [&'static str; 8] =
        ["accepted", "partial", "pending_ack", "retry", "too_large", "too_slow", "hold", "rejected"];
}

impl From<NoAnswer> for Verdict {
    fn from(failure: NoAnswer) -> Self {
        let cause = failure.cause + failure.remedy;
        match failure.human {
            true => Self::hold(HoldReason::Misconfigured, cause),
            false => Self::Retry { cause, after: None, ambiguous: failure.ambiguous },
        }
    }
}

/// How long a promised acknowledgement is waited for unless an output says otherwise: Splunk keeps its last partial
/// batch for two minutes.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(300);

/// Sends events to a collector.
#[async_trait]
pub trait Output: Send + Sync {
    /// How frames are joined into a body.
    fn framing(&self) -> Framing;

    /// Appends the event as one frame, without the terminator. Pure; cannot fail.
    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        format.encode(event, frame);
    }

    /// Whether the events of a request may stand in any order, as for a collector that goes by the time in each of them:
    /// then those of one action stand together, which compresses better.
    fn any_order(&self) -> bool {
        false
    }

    /// Which lane an event travels in: events of different lanes share no request. Pure but for numbering what is new; few
    /// in number.
    fn lane(&self, _event: &AuditEvent<'_>) -> u32 {
        0
    }

    /// Makes one request of events of one lane.
    async fn send_in_lane(&self, _lane: u32, request: &Request) -> Verdict {
        self.send(request).await
    }

    /// What stands before the frames, in front of [`Framing::open`], where so many bytes of frames of one lane follow: an
    /// envelope that is configured, that is the lane's, or that tells its length.
    fn envelope(&self, _lane: u32, _frames_bytes: usize) -> Vec<u8> {
        Vec::new()
    }

    /// Whether the collector would keep this frame as it is. A protocol that cuts what is too long and answers that all
    /// is well says here what it would cut: such an event becomes a dead letter.
    ///
    /// # Errors
    /// The [`Rejection`] that the collector does not give.
    fn fits(&self, _frame: &[u8]) -> Result<(), Rejection> {
        Ok(())
    }

    /// Makes one request. No retry, no sleep, no bookkeeping: the engine does that.
    async fn send(&self, request: &Request) -> Verdict;

    /// Asks which of these promises are kept. The rest is still pending.
    async fn acknowledged(&self, _pending: &[AckId]) -> Vec<AckId> {
        Vec::new()
    }

    /// How long to wait for an acknowledgement before the same request is sent again.
    fn ack_timeout(&self) -> Duration {
        ACK_TIMEOUT
    }

    /// Asks the collector whether it would take events: address, TLS, credentials, and what else it tells. Sends none.
    async fn probe(&self) -> Probe {
        Probe::Unknown
    }

    /// Told on SIGHUP: opens files anew after logrotate moved them.
    async fn reopen(&self) {}
}

/// What becomes of an event that the collector would accept and cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Oversized {
    /// It is kept as a dead letter.
    #[default]
    DeadLetter,
    /// It is sent all the same.
    Send,
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
    /// The largest batch that can be configured: the collector would take no larger one. `None` where it does not say.
    pub most: Option<BatchMost>,
    /// How long a batch waits to fill.
    pub max_age: Duration,
    /// Requests under way at once.
    pub in_flight: usize,
}

/// The largest batch that a collector takes.
#[derive(Clone, Copy, Debug)]
pub struct BatchMost {
    /// Uncompressed bytes.
    pub bytes: u64,
    /// Events, where they are limited.
    pub events: Option<usize>,
    /// Whose limit that is, in words.
    pub why: &'static str,
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

#[cfg(test)]
mod tests;
