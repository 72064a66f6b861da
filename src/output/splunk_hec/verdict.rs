//! What Splunk's answers mean, code by code.
//!
//! A refused batch was taken up to the refused event: all before `invalid-event-number` is indexed, nothing from it
//! on is. Sending the whole batch again would duplicate the first part, giving it up would lose the last.
//!
//! With `ack` the first part is not safe yet, and there is no number to ask for it by: it is sent again, and may be there
//! twice. A part that an indexer loses before it is on disk would be lost for good.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::batch::Request;
use crate::http::Answer;
use crate::output::{HoldReason, Rejection, Verdict};
use crate::secret::excerpt;

/// Splunk Cloud answers a body that is too large as if its first event were malformed; 1 MB is what it documents.
const SUSPICIOUS_BYTES: usize = 1_000_000;

/// Longest reason that is kept: it goes into logs and dead letters.
const MAX_REASON_CHARACTERS: usize = 300;

#[derive(Default, Deserialize)]
struct Reply {
    #[serde(default)]
    text: String,
    code: Option<u16>,
    #[serde(rename = "invalid-event-number")]
    invalid_event: Option<usize>,
    #[serde(rename = "ackId")]
    ack: Option<u64>,
}

#[derive(Deserialize)]
struct Acknowledgements {
    acks: BTreeMap<String, bool>,
}

fn reply(answer: &Answer) -> Reply {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// What an answer's meaning depends on besides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// Events of one request may be for several indexes.
    pub(super) index_varies: bool,
    /// Only what is acknowledged counts as delivered.
    pub(super) ack: bool,
}

/// The verdict on a request by its answer.
pub(super) fn of_answer(answer: &Answer, request: &Request, terms: Terms) -> Verdict {
    let reply = reply(answer);
    let said = answer.summary();
    let hold = |reason, advice: &str| Verdict::hold(reason, format!("{said}; {advice}"));
    let misconfigured = |advice: &str| hold(HoldReason::Misconfigured, advice);
    match reply.code {
        Some(0) if answer.is_success() => Verdict::Accepted { slow_down: false },
        // Taken, although it sounds like an error: sending it again would duplicate.
        Some(24 | 25) if answer.is_success() => Verdict::Accepted { slow_down: true },
        Some(1) => hold(HoldReason::Credentials, "enable the token of `token` in Splunk"),
        Some(2..=4) => hold(HoldReason::Credentials, "set `token` to a token that Splunk knows"),
        Some(5) => misconfigured("events were sent and none arrived: look for a proxy that drops the body"),
        Some(6 | 12 | 13 | 15) => refused_at(&reply, request, terms.ack),
        // The number it carries is that of the event after the wrong one: of no use. Where only some events are for the
        // wrong index, they are found by halving; the one that is left is no bad event, and is held.
        Some(7) if terms.index_varies && request.events > 1 => Verdict::rejected(said),
        Some(7) => misconfigured("set `index` to one that exists and that the token may write to"),
        Some(8) => Verdict::Retry { cause: said, after: answer.retry_after, ambiguous: true },
        Some(9) => busy_at(&reply, answer, request, terms.ack),
        Some(10 | 11 | 28) => misconfigured(
            "a channel was sent and did not arrive: let proxies pass x-splunk-request-channel, and make them sticky",
        ),
        Some(14 | 16 | 17 | 21 | 22) => {
            misconfigured("this is no answer to events: check the host and port of `url`")
        }
        Some(18..=20 | 23 | 26 | 27) => Verdict::retry(said, answer.retry_after),
        _ => by_status(answer),
    }
}

/// Prefix rule: what came before the refused event is in.
fn refused_at(reply: &Reply, request: &Request, ack: bool) -> Verdict {
    let reason = if reply.text.is_empty() { "refused by HEC" } else { &reply.text };
    let reason = excerpt(reason, MAX_REASON_CHARACTERS);
    let reason = format!("{reason} (HEC code {})", reply.code.unwrap_or_default());
    match reply.invalid_event {
        Some(0) if request.events > 1 && request.uncompressed_bytes > SUSPICIOUS_BYTES => Verdict::TooLarge,
        Some(number) if number < request.events => Verdict::Partial {
            duplicate: Vec::new(),
            retry: (0..if ack { number } else { 0 }).chain(number + 1..request.events).collect(),
            rejected: vec![(number, Rejection { reason })],
            after: None,
            ambiguous: ack && number > 0,
        },
        _ => Verdict::rejected(reason),
    }
}

/// A busy server may tell where it stopped. Where what it took comes again, it comes in smaller parts, or it could come with
/// every try.
fn busy_at(reply: &Reply, answer: &Answer, request: &Request, ack: bool) -> Verdict {
    match reply.invalid_event {
        Some(number) if ack && (1..request.events).contains(&number) => {
            Verdict::TooSlow { cause: answer.summary() }
        }
        Some(number) if (1..request.events).contains(&number) => Verdict::Partial {
            duplicate: Vec::new(),
            retry: (number..request.events).collect(),
            rejected: Vec::new(),
            after: answer.retry_after,
            ambiguous: false,
        },
        _ => Verdict::retry(answer.summary(), answer.retry_after),
    }
}

/// A 400 that is not even JSON comes from something in between, which knows nothing of single events.
fn by_status(answer: &Answer) -> Verdict {
    if answer.status == 400 && serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_err() {
        let message = format!("{}; this is not Splunk's answer: check `url` and proxies", answer.summary());
        return Verdict::hold(HoldReason::Misconfigured, message);
    }
    Verdict::from_status(answer)
}

/// The number under which the request will be acknowledged.
pub(super) fn ack_number(answer: &Answer) -> Option<u64> {
    reply(answer).ack
}

/// True if a poll was answered with "safe".
pub(super) fn is_acknowledged(answer: &Answer, number: u64) -> bool {
    serde_json::from_slice(&answer.body)
        .is_ok_and(|Acknowledgements { acks }| acks.get(&number.to_string()) == Some(&true))
}

/// True if a poll was answered with "ACK is disabled": the server has delivered what it answered with 200.
pub(super) fn acknowledges_no_more(answer: &Answer) -> bool {
    reply(answer).code == Some(14)
}

/// The verdict of a server on its own health; none if it would take events.
pub(super) fn of_health(answer: &Answer, ack: bool) -> Option<Verdict> {
    let said = answer.summary();
    match (reply(answer).code, answer.status) {
        (Some(17), _) | (None, 200..=299) => None,
        (Some(19), _) if !ack => None,
        (Some(1..=4 | 21 | 22), _) | (None, 401 | 403) => {
            let message = format!("{said}; set `token` to a token that Splunk knows, and enable it there");
            Some(Verdict::hold(HoldReason::Credentials, message))
        }
        (_, 500..=599 | 429) => Some(Verdict::retry(said, answer.retry_after)),
        // What speaks the protocol need not have this part of it: then the events themselves must show.
        _ => None,
    }
}

/// True for an answer to a request without an event that shows a token Splunk knows.
pub(super) fn knows_the_token(answer: &Answer) -> bool {
    matches!(reply(answer).code, Some(0 | 5 | 6 | 12 | 13 | 15 | 24 | 25)) || answer.is_success()
}

#[cfg(test)]
mod tests;
