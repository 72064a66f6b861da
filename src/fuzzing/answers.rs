//! Answers of collectors: whatever they say, the verdict is about events of this batch, each once, in words that fit on a
//! line of the log.

use std::time::Duration;

use bytes::Bytes;

use crate::batch::Request;
use crate::compress::Encoding;
use crate::http::Answer;
use crate::output::{Verdict, datadog, elastic, google_secops, loki, otlp, sentinel, splunk_hec, sumo};

type Judge = fn(&Answer, &Request) -> Verdict;

const JUDGES: &[Judge] = &[
    datadog::judge,
    elastic::judge,
    google_secops::judge,
    loki::judge,
    otlp::judge,
    sentinel::judge,
    splunk_hec::judge,
    sumo::judge,
    |answer, _| Verdict::from_status(answer),
];

const STATUSES: [u16; 24] = [
    200, 201, 202, 204, 205, 260, 301, 302, 400, 401, 403, 404, 405, 407, 408, 410, 413, 422, 429, 500, 502,
    503, 504, 999,
];

/// Longest text of a verdict.
const LONGEST: usize = 2000;

/// `data`: the status, the number of events, how the answer came, and its body.
pub fn answers(data: &[u8]) {
    let Some((&[status, events, how], body)) = data.split_first_chunk() else { return };
    let answer = Answer {
        status: STATUSES[usize::from(status) % STATUSES.len()],
        retry_after: (how & 1 > 0).then_some(Duration::from_secs(7)),
        body: Bytes::copy_from_slice(body),
        cut: how & 2 > 0,
        cookies: String::new(),
    };
    let request = Request {
        body: Bytes::new(),
        encoding: Encoding::None,
        events: 1 + usize::from(events % 16),
        uncompressed_bytes: if how & 4 > 0 { 2_000_000 } else { 1000 },
    };
    for judge in JUDGES {
        let verdict = judge(&answer, &request);
        assert_eq!(verdict, judge(&answer, &request));
        check(&verdict, &answer, request.events);
    }
}

fn check(verdict: &Verdict, answer: &Answer, events: usize) {
    let mut named = Vec::new();
    let mut texts: Vec<&str> = Vec::new();
    match verdict {
        Verdict::Accepted { .. } | Verdict::PendingAck { .. } => {
            assert!(answer.is_success(), "a refusal counts as success: {answer:?}");
        }
        Verdict::AcceptedWithRemark(remark) => {
            assert!(answer.is_success(), "a refusal counts as success: {answer:?}");
            texts.push(remark);
        }
        Verdict::Partial { duplicate, retry, rejected, .. } => {
            named.extend(duplicate.iter().chain(retry).copied());
            named.extend(rejected.iter().map(|(index, _)| *index));
            texts.extend(rejected.iter().map(|(_, rejection)| rejection.reason.as_str()));
        }
        Verdict::Retry { cause, .. } | Verdict::TooSlow { cause } => texts.push(cause),
        Verdict::Hold(alarm) => texts.push(&alarm.message),
        Verdict::Rejected(rejection) => texts.push(&rejection.reason),
        Verdict::TooLarge => {}
    }
    let count = named.len();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), count, "an event has two fates: {verdict:?}");
    assert!(named.iter().all(|index| *index < events), "of no event of {events}: {verdict:?}");
    for text in texts {
        assert!(!text.chars().any(char::is_control), "it breaks a line of the log: {text:?}");
        assert!(text.chars().count() <= LONGEST, "{} characters", text.chars().count());
    }
}
