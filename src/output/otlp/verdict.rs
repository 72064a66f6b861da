//! What OTLP's answers mean.
//!
//! | answer | records | verdict |
//! |---|---|---|
//! | 200 | all in | accepted |
//! | 200 with `rejected_log_records` | some refused, nobody says which | all dead-lettered: to send any again is forbidden |
//! | 200, longer than what is read | some may be refused | all dead-lettered |
//! | 429, 503 | none in | retry |
//! | 502, 504 | unknown | retry, ambiguous |
//! | 400 | none in | rejected: the batch is narrowed down |
//! | 413, or 400 that says so | none in | too large |
//! | other | none in | hold: OTLP forbids the retry, and no event is known to be at fault |

use serde::Deserialize;

use super::proto::{self, Value};
use crate::http::Answer;
use crate::output::{HoldReason, Rejection, Verdict};
use crate::secret::excerpt;

/// Longest reason that is kept.
const MAX_REASON_CHARACTERS: usize = 300;

/// Fields of `ExportLogsServiceResponse`, of its `ExportLogsPartialSuccess`, and of `google.rpc.Status`.
const PARTIAL_SUCCESS: u8 = 1;
const REJECTED_LOG_RECORDS: u8 = 1;
const ERROR_MESSAGE: u8 = 2;
const STATUS_MESSAGE: u8 = 2;

/// The verdict on a request of so many records.
pub(super) fn of_answer(answer: &Answer, records: usize) -> Verdict {
    let said = said(answer);
    let hold = |reason, advice: &str| Verdict::hold(reason, format!("{said}; {advice}"));
    match answer.status {
        200..=299 => of_success(answer, records),
        // This is how the OpenTelemetry Collector says 413.
        400 if said.contains("request body too large") => Verdict::TooLarge,
        400 => Verdict::rejected(said),
        401 | 403 => hold(HoldReason::Credentials, "check `headers`"),
        404 => hold(HoldReason::NotFound, "check the path of `url`: /v1/logs is added to it"),
        413 => Verdict::TooLarge,
        429 | 503 => Verdict::retry(said, answer.retry_after),
        502 | 504 => Verdict::Retry { cause: said, after: answer.retry_after, ambiguous: true },
        300..=399 => Verdict::from_status(answer),
        _ => hold(
            HoldReason::Misconfigured,
            "OTLP lets nobody try again after this answer: look at the collector's log",
        ),
    }
}

/// `partial_success`: how many records were refused, and what is said of it.
fn partial_success(answer: &Answer) -> Option<(u64, String)> {
    if let Some(Value::Bytes(partial)) = proto::field(PARTIAL_SUCCESS, &answer.body) {
        let rejected = match proto::field(REJECTED_LOG_RECORDS, partial) {
            // It is signed there: a negative count is none.
            Some(Value::Number(rejected)) if rejected <= i64::MAX as u64 => rejected,
            _ => 0,
        };
        return Some((rejected, text(proto::field(ERROR_MESSAGE, partial))));
    }
    // OTLP wants the answer in the request's encoding, and a gateway may speak JSON alone: refusals are refusals.
    let Json { partial } = serde_json::from_slice(&answer.body).ok()?;
    let Partial { rejected, message } = partial?;
    let rejected = match rejected {
        Some(Count::Number(rejected)) => u64::try_from(rejected).ok(),
        Some(Count::Text(rejected)) => rejected.parse().ok(),
        None => None,
    };
    Some((rejected.unwrap_or_default(), excerpt(&message, MAX_REASON_CHARACTERS)))
}

/// An answer in JSON, whose 64-bit numbers are texts.
#[derive(Deserialize)]
struct Json {
    #[serde(rename = "partialSuccess", alias = "partial_success")]
    partial: Option<Partial>,
}

#[derive(Deserialize)]
struct Partial {
    #[serde(rename = "rejectedLogRecords", alias = "rejected_log_records")]
    rejected: Option<Count>,
    #[serde(rename = "errorMessage", alias = "error_message", default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(i64),
    Text(String),
}

fn of_success(answer: &Answer, records: usize) -> Verdict {
    let reason = match partial_success(answer) {
        Some((rejected @ 1.., message)) => {
            let which = if rejected < records as u64 { " and does not say which" } else { "" };
            format!("the collector refused {rejected} of these {records} records{which}: {message}")
        }
        // It may tell of a refusal, one error for each record.
        None if answer.cut && !answer.is_page() => {
            format!(
                "the collector's answer is longer than what is read, so that nobody knows which of these {records} \
                     records it refused"
            )
        }
        _ => return Verdict::Accepted { slow_down: false },
    };
    Verdict::Partial {
        duplicate: Vec::new(),
        retry: Vec::new(),
        rejected: (0..records).map(|index| (index, Rejection { reason: reason.clone() })).collect(),
        after: None,
        ambiguous: false,
    }
}

/// What a collector that took all records has to say all the same; empty if nothing.
pub(super) fn warning(answer: &Answer) -> String {
    match partial_success(answer) {
        Some((_, message)) if answer.is_success() => message,
        _ => String::new(),
    }
}

/// Status and message: a `Status` of gRPC where the collector keeps to the protocol, any text where it does not.
fn said(answer: &Answer) -> String {
    match text(proto::field(STATUS_MESSAGE, &answer.body)) {
        message if message.is_empty() => answer.summary(),
        message => format!("the collector answered {}: {message}", answer.status),
    }
}

fn text(value: Option<Value<'_>>) -> String {
    let Some(Value::Bytes(bytes)) = value else { return String::new() };
    let text = String::from_utf8_lossy(bytes);
    excerpt(&text, MAX_REASON_CHARACTERS)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    use prost::Message;

    use super::*;

    fn answer(status: u16, body: Vec<u8>) -> Answer {
        Answer { status, retry_after: None, body: body.into(), cut: false, cookies: String::new() }
    }

    fn success(rejected_log_records: i64, error_message: &str) -> Answer {
        let partial =
            ExportLogsPartialSuccess { rejected_log_records, error_message: error_message.to_owned() };
        let response = ExportLogsServiceResponse { partial_success: Some(partial) };
        answer(200, response.encode_to_vec())
    }

    #[test]
    fn every_status_has_its_verdict() {
        for (status, expected) in [
            (200, "accepted"),
            (202, "accepted"),
            (299, "accepted"),
            (303, "hold misconfigured"),
            (400, "rejected"),
            (401, "hold credentials"),
            (403, "hold credentials"),
            (404, "hold not_found"),
            (405, "hold misconfigured"),
            (408, "hold misconfigured"),
            (413, "too_large"),
            (415, "hold misconfigured"),
            (422, "hold misconfigured"),
            (429, "retry false"),
            (500, "hold misconfigured"),
            (501, "hold misconfigured"),
            (502, "retry true"),
            (503, "retry false"),
            (504, "retry true"),
        ] {
            let verdict = match of_answer(&answer(status, Vec::new()), 2) {
                Verdict::Hold(alarm) => format!("hold {}", alarm.reason.as_str()),
                Verdict::Retry { ambiguous, .. } => format!("retry {ambiguous}"),
                other => other.label().to_owned(),
            };
            assert_eq!(verdict, expected, "{status}");
        }
    }

    #[test]
    fn a_redirect_is_a_matter_of_the_address() {
        for status in [300, 307, 399] {
            let Verdict::Hold(alarm) = of_answer(&answer(status, Vec::new()), 2) else {
                panic!("{status} holds")
            };
            assert!(alarm.message.contains("check the host and port of `url`"), "{}", alarm.message);
        }
    }

    #[test]
    fn the_wait_that_is_asked_for_is_passed_on() {
        let wait = Some(std::time::Duration::from_secs(7));
        for status in [429, 502, 503, 504] {
            let answer = Answer { retry_after: wait, ..answer(status, Vec::new()) };
            let Verdict::Retry { after, .. } = of_answer(&answer, 2) else { panic!("{status} is a retry") };
            assert_eq!(after, wait, "{status}");
        }
    }

    #[test]
    fn refused_records_that_are_not_named_are_all_kept_and_none_is_sent_again() {
        for (rejected, said) in [
            (1, "the collector refused 1 of these 3 records and does not say which: too old"),
            (3, "the collector refused 3 of these 3 records: too old"),
            (9, "the collector refused 9 of these 3 records: too old"),
        ] {
            let Verdict::Partial { duplicate, retry, rejected, after, ambiguous } =
                of_answer(&success(rejected, "too old"), 3)
            else {
                panic!("{rejected} is not partial")
            };
            assert_eq!((duplicate, retry, after, ambiguous), (vec![], vec![], None, false));
            assert_eq!(rejected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2]);
            assert!(rejected.iter().all(|(_, rejection)| rejection.reason == said), "{rejected:?}");
        }
    }

    #[test]
    fn a_success_that_is_too_long_to_be_read_is_not_known_to_be_one() {
        // An error for each of many records, in one message.
        let mut cut = Answer { cut: true, ..success(2, &"too old; ".repeat(1000)) };
        cut.body.truncate(4096);
        let Verdict::Partial { retry, rejected, .. } = of_answer(&cut, 3) else {
            panic!("taken for a success")
        };
        assert_eq!((retry, rejected.len()), (vec![], 3));
        assert!(rejected[0].1.reason.contains("longer than"), "{}", rejected[0].1.reason);
    }

    #[test]
    fn a_refusal_that_is_told_in_json_is_one() {
        for body in [
            r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#,
            r#"{ "partialSuccess": { "rejectedLogRecords": 2, "errorMessage": "too old" } }"#,
            r#"{"partial_success":{"rejected_log_records":"2","error_message":"too old"}}"#,
        ] {
            let Verdict::Partial { retry, rejected, .. } = of_answer(&answer(200, body.into()), 3) else {
                panic!("{body} is not partial")
            };
            assert_eq!((retry, rejected.len()), (vec![], 3), "{body}");
            let said = "the collector refused 2 of these 3 records and does not say which: too old";
            assert_eq!(rejected[0].1.reason, said);
        }
        let warns = r#"{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"deprecated"}}"#;
        assert_eq!(of_answer(&answer(200, warns.into()), 3), Verdict::Accepted { slow_down: false });
        assert_eq!(warning(&answer(200, warns.into())), "deprecated");
    }

    #[test]
    fn a_warning_an_empty_answer_and_one_that_is_none_are_a_success() {
        let empty = ExportLogsServiceResponse { partial_success: None }.encode_to_vec();
        for answer in [
            success(0, "deprecated"),
            success(0, ""),
            success(-1, ""),
            answer(200, empty),
            answer(200, b"{\"partialSuccess\":{}}".to_vec()),
            answer(200, b"<html>".to_vec()),
        ] {
            assert_eq!(of_answer(&answer, 3), Verdict::Accepted { slow_down: false }, "{answer:?}");
        }
        assert_eq!(warning(&success(0, "deprecated")), "deprecated");
        assert_eq!(warning(&answer(200, b"<html>".to_vec())), "");
        assert_eq!(warning(&Answer { status: 500, ..success(0, "deprecated") }), "", "of no success");
    }

    #[test]
    fn the_message_of_a_grpc_status_is_told_as_one_line() {
        let mut status = Vec::new();
        proto::write_bytes(2, b"no such\nattribute", &mut status);
        let Verdict::Rejected(rejection) = of_answer(&answer(400, status), 3) else { panic!() };
        assert_eq!(rejection.reason, "the collector answered 400: no such attribute");
        let mut status = Vec::new();
        proto::write_bytes(2, b"http: request body too large", &mut status);
        assert_eq!(of_answer(&answer(400, status), 3), Verdict::TooLarge);
        // From 32 bytes on, the length is a printable character, which is no part of the message.
        let mut status = Vec::new();
        proto::write_bytes(2, b"a message whose length is printable", &mut status);
        let Verdict::Rejected(rejection) = of_answer(&answer(400, status), 3) else { panic!() };
        assert_eq!(rejection.reason, "the collector answered 400: a message whose length is printable");
        let Verdict::Rejected(rejection) = of_answer(&answer(400, b"bad".to_vec()), 3) else { panic!() };
        assert_eq!(rejection.reason, "the collector answered 400: bad");
    }
}
