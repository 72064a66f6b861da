//! From the reports on the events of one request to its verdict.
//!
//! | the broker or the client says | the event |
//! |---|---|
//! | delivered | is in |
//! | message too large, alone in its record batch | is refused for its own sake |
//! | message too large, among others | is sent again, apart from those that are in; of all: the request is too large |
//! | invalid record, alone in its record batch, or named by a broker that tells which (Kafka 2.4) | is refused for its own sake |
//! | invalid record, among others | is sent again, apart from those that are in; of all: the request is narrowed down |
//! | invalid record in the same record batch | is sent again |
//! | invalid timestamp, which is that of the client's clock | holds: misconfigured |
//! | login refused, not authorised | holds: credentials |
//! | unknown topic | holds: not found |
//! | unsupported version, compression, feature; policy | holds: misconfigured |
//! | queue full, other that was surely not taken | is sent again |
//! | delivery timed out, fatal error, anything else | is sent again, and may be in already |
//!
//! A verdict that holds tells nothing of other events, so those that are in are told first, and the rest is sent again by
//! itself: then all of it holds.

use rdkafka::types::RDKafkaErrorCode as Code;

use super::Plan;
use super::session::BATCH_BYTES;
use crate::output::{HoldReason, Rejection, Verdict};

/// An event that is not in.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) index: usize,
    pub(super) code: Code,
    /// Of its key, headers and document.
    pub(super) bytes: usize,
    pub(super) topic: String,
}

/// What is to become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    TooLarge,
    Rejected,
    Hold(HoldReason),
    Again,
    Ambiguous,
}

fn fate(code: Code) -> Fate {
    use Code::{
        Authentication, BrokerNotAvailable, ClusterAuthorizationFailed, IllegalSASLState, InvalidConfig,
        InvalidDifferentRecord, InvalidRecord, InvalidRequiredAcks, InvalidTimestamp, InvalidTopic,
        LeaderNotAvailable, MessageBatchTooLarge, MessageSizeTooLarge, NotEnoughReplicas,
        NotLeaderForPartition, PolicyViolation, QueueFull, SaslAuthenticationFailed, SecurityDisabled,
        TopicAuthorizationFailed, TransactionalIdAuthorizationFailed, UnknownPartition, UnknownTopic,
        UnknownTopicOrPartition, UnsupportedCompressionType, UnsupportedFeature, UnsupportedForMessageFormat,
        UnsupportedSASLMechanism, UnsupportedVersion,
    };
    match code {
        MessageSizeTooLarge | MessageBatchTooLarge => Fate::TooLarge,
        InvalidRecord => Fate::Rejected,
        TopicAuthorizationFailed
        | ClusterAuthorizationFailed
        | TransactionalIdAuthorizationFailed
        | Authentication
        | SaslAuthenticationFailed
        | UnsupportedSASLMechanism
        | IllegalSASLState => Fate::Hold(HoldReason::Credentials),
        UnknownTopic | UnknownTopicOrPartition | UnknownPartition | InvalidTopic => {
            Fate::Hold(HoldReason::NotFound)
        }
        UnsupportedVersion
        | UnsupportedFeature
        | UnsupportedForMessageFormat
        | UnsupportedCompressionType
        | InvalidRequiredAcks
        | InvalidConfig
        | InvalidTimestamp
        | PolicyViolation
        | SecurityDisabled => Fate::Hold(HoldReason::Misconfigured),
        InvalidDifferentRecord
        | QueueFull
        | NotEnoughReplicas
        | LeaderNotAvailable
        | NotLeaderForPartition
        | BrokerNotAvailable => Fate::Again,
        _ => Fate::Ambiguous,
    }
}

/// True if it says that the login is refused.
pub(super) fn is_of_login(code: Code) -> bool {
    use Code::{Authentication, IllegalSASLState, SaslAuthenticationFailed, UnsupportedSASLMechanism};
    matches!(code, Authentication | SaslAuthenticationFailed | UnsupportedSASLMechanism | IllegalSASLState)
}

/// True if what went wrong does not mend itself in the session that it happened in: topics that are said not to be there
/// stay away for a minute, and a fatal error for good.
pub(super) fn ends_the_session(code: Code) -> bool {
    matches!(fate(code), Fate::Hold(_) | Fate::Ambiguous)
}

/// The verdict on a request of so many events.
pub(super) fn of(failures: Vec<Failure>, events: usize, plan: &Plan) -> Verdict {
    let mut rejected = Vec::new();
    let mut rest = Vec::new();
    let all = failures.len() == events;
    let of_code = |code| failures.iter().filter(move |failure| failure.code == code).count();
    // Else the record batch was refused whole, and what is good in it as well.
    let named = of_code(Code::InvalidRecord) == 1 || of_code(Code::InvalidDifferentRecord) > 0;
    for failure in failures {
        match fate(failure.code) {
            Fate::TooLarge if events == 1 || failure.bytes > BATCH_BYTES => rejected.push(failure),
            Fate::Rejected if named => rejected.push(failure),
            fate => rest.push((fate, failure)),
        }
    }
    if rest.is_empty() && rejected.is_empty() {
        return Verdict::Accepted { slow_down: false };
    }
    let ambiguous = rest.iter().any(|(fate, _)| *fate == Fate::Ambiguous);
    if !all || !rejected.is_empty() {
        return Verdict::Partial {
            duplicate: Vec::new(),
            retry: rest.into_iter().map(|(_, failure)| failure.index).collect(),
            rejected: rejected.into_iter().map(refused).collect(),
            after: None,
            ambiguous,
        };
    }
    if rest.iter().all(|(fate, _)| matches!(fate, Fate::TooLarge | Fate::Rejected)) {
        let invalid = rest.into_iter().find(|(fate, _)| *fate == Fate::Rejected);
        return invalid.map_or(Verdict::TooLarge, |(_, failure)| Verdict::Rejected(refused(failure).1));
    }
    let hold = rest.iter().find_map(|(fate, failure)| match fate {
        Fate::Hold(reason) => Some(held(*reason, failure.code, &failure.topic, plan)),
        _ => None,
    });
    // What may be in is sent again first, so that it is counted; the rest comes to its hold at the next attempt.
    match hold.filter(|_| !ambiguous) {
        Some(hold) => hold,
        None => {
            let telling = rest.iter().find(|(fate, _)| *fate != Fate::TooLarge);
            let said = telling.map_or_else(String::new, |(_, failure)| failure.code.to_string());
            let cause = format!("{}: {said}", plan.servers.join(", "));
            Verdict::Retry { cause, after: None, ambiguous }
        }
    }
}

fn refused(Failure { index, code, bytes, .. }: Failure) -> (usize, Rejection) {
    let reason = match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => {
            format!("{code}: {bytes} bytes; the topic's max.message.bytes says how many it takes")
        }
        Code::InvalidRecord => format!("{code}; a compacted topic takes no message without a key"),
        _ => code.to_string(),
    };
    (index, Rejection { reason })
}

/// The alarm that goes with this error about a topic, in a sentence that says what to do.
fn held(reason: HoldReason, code: Code, topic: &str, plan: &Plan) -> Verdict {
    let servers = plan.servers.join(", ");
    let message = match reason {
        HoldReason::Credentials if is_of_login(code) => {
            format!("cannot log in to {servers}: {code}; check {}", plan.login.remedy())
        }
        HoldReason::Credentials if code == Code::ClusterAuthorizationFailed => {
            format!("{servers}: {code}; grant the login the right IdempotentWrite on the cluster")
        }
        HoldReason::Credentials => {
            format!("{servers}: {code}; grant the login the right Write on the topic {topic}")
        }
        HoldReason::NotFound => format!("{servers}: {code}; make the topic {topic}, or correct `topic`"),
        _ if code == Code::InvalidTimestamp => format!(
            "{servers}: {code}; set the clock of this machine, or `message.timestamp.after.max.ms` and the like of the topic {topic}"
        ),
        _ => format!("{servers}: {code}; check `codec` and the settings of the topic {topic}"),
    };
    Verdict::hold(reason, message)
}

/// The alarm for an error about a topic, if it is one that a human must look at.
pub(super) fn alarm(code: Code, topic: &str, plan: &Plan) -> Option<Verdict> {
    match fate(code) {
        Fate::Hold(reason) => Some(held(reason, code, topic, plan)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::component::parse;
    use crate::http::HttpSettings;

    fn of_codes(codes: &[Option<Code>], bytes: usize) -> Verdict {
        let table = json!({ "topic": "audit", "bootstrap_servers": ["k:1"] });
        let plan = Plan::new(parse(table).unwrap(), &HttpSettings::default()).unwrap();
        let failures = codes.iter().enumerate().filter_map(|(index, code)| {
            code.map(|code| Failure { index, code, bytes, topic: "audit".to_owned() })
        });
        of(failures.collect(), codes.len(), &plan)
    }

    /// The verdict on a request of this one event.
    fn alone(code: Code) -> String {
        match of_codes(&[Some(code)], 10) {
            Verdict::Hold(alarm) => {
                assert!(
                    alarm.message.contains("k:1") && alarm.message.contains('`')
                        || alarm.message.contains("the right"),
                    "{}",
                    alarm.message
                );
                format!("hold {}", alarm.reason.as_str())
            }
            Verdict::Retry { ambiguous, .. } => format!("retry {ambiguous}"),
            Verdict::Partial { rejected, .. } => format!("rejected {}", rejected.len()),
            other => other.label().to_owned(),
        }
    }

    #[test]
    fn every_code_has_its_verdict() {
        for (code, expected) in [
            (Code::MessageSizeTooLarge, "rejected 1"),
            (Code::MessageBatchTooLarge, "rejected 1"),
            (Code::InvalidRecord, "rejected 1"),
            (Code::TopicAuthorizationFailed, "hold credentials"),
            (Code::ClusterAuthorizationFailed, "hold credentials"),
            (Code::Authentication, "hold credentials"),
            (Code::SaslAuthenticationFailed, "hold credentials"),
            (Code::UnsupportedSASLMechanism, "hold credentials"),
            (Code::UnknownTopicOrPartition, "hold not_found"),
            (Code::UnknownTopic, "hold not_found"),
            (Code::InvalidTopic, "hold not_found"),
            (Code::UnsupportedCompressionType, "hold misconfigured"),
            (Code::UnsupportedVersion, "hold misconfigured"),
            (Code::PolicyViolation, "hold misconfigured"),
            (Code::InvalidTimestamp, "hold misconfigured"),
            (Code::InvalidDifferentRecord, "retry false"),
            (Code::QueueFull, "retry false"),
            (Code::NotEnoughReplicas, "retry false"),
            (Code::NotLeaderForPartition, "retry false"),
            (Code::NotEnoughReplicasAfterAppend, "retry true"),
            (Code::MessageTimedOut, "retry true"),
            (Code::PurgeQueue, "retry true"),
            (Code::Fatal, "retry true"),
            (Code::OutOfOrderSequenceNumber, "retry true"),
            (Code::InvalidProducerEpoch, "retry true"),
            (Code::Fenced, "retry true"),
            (Code::UnknownProducerId, "retry true"),
            (Code::BrokerTransportFailure, "retry true"),
            (Code::Unknown, "retry true"),
        ] {
            assert_eq!(alone(code), expected, "{code}");
        }
    }

    #[test]
    fn events_are_told_apart_and_those_that_are_in_are_told_first() {
        let ok = None;
        let partial = |codes: &[Option<Code>], bytes: usize| match of_codes(codes, bytes) {
            Verdict::Partial { retry, rejected, ambiguous, .. } => {
                (retry, rejected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), ambiguous)
            }
            other => panic!("{other:?} is not partial"),
        };
        let (large, late) = (Some(Code::MessageSizeTooLarge), Some(Code::MessageTimedOut));
        let (bad, missing) = (Some(Code::InvalidRecord), Some(Code::UnknownTopicOrPartition));
        assert_eq!(of_codes(&[ok, ok], 10), Verdict::Accepted { slow_down: false });
        assert_eq!(partial(&[ok, bad, Some(Code::InvalidDifferentRecord)], 10), (vec![2], vec![1], false));
        assert_eq!(partial(&[ok, late, ok], 10), (vec![1], vec![], true));
        assert_eq!(partial(&[ok, missing], 10), (vec![1], vec![], false));
        // Among others nobody knows which of them made the record batch too large.
        assert_eq!(partial(&[ok, large, large], 10), (vec![1, 2], vec![], false));
        assert_eq!(of_codes(&[large, large], 10), Verdict::TooLarge);
        // Larger than a record batch of several is: it was alone.
        assert_eq!(partial(&[ok, large], BATCH_BYTES + 1), (vec![], vec![1], false));
        // Nobody says which of them made the record batch invalid.
        assert_eq!(of_codes(&[bad, bad], 10).label(), "rejected");
        assert_eq!(of_codes(&[bad, large, bad], 10).label(), "rejected");
        assert_eq!(partial(&[ok, bad, bad], 10), (vec![1, 2], vec![], false));
        assert_eq!(partial(&[ok, bad, ok], 10), (vec![], vec![1], false));
        assert_eq!(
            partial(&[bad, Some(Code::InvalidDifferentRecord), bad], 10),
            (vec![1], vec![0, 2], false)
        );
        let mixed = of_codes(&[missing, late], 10);
        assert!(
            matches!(mixed, Verdict::Retry { ambiguous: true, .. }),
            "what may be in is counted: {mixed:?}"
        );
        assert!(matches!(of_codes(&[missing, Some(Code::QueueFull)], 10), Verdict::Hold(_)));
    }
}
