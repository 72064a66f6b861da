//! What Loki's answers mean.
//!
//! A 400 refuses single entries and keeps the others. Sending those again is harmless, since Loki knows them, so that
//! narrowing a batch down finds the entries to blame; where the answer says that it was all of them, nothing is asked
//! twice.

use crate::http::Answer;
use crate::output::{HoldReason, Rejection, Verdict};

/// The verdict on a request of so many entries.
pub(super) fn of_answer(answer: &Answer, entries: usize) -> Verdict {
    let said = answer.summary();
    // Releases differ in how they begin a sentence.
    let text = String::from_utf8_lossy(&answer.body).to_lowercase();
    let hold = |reason, advice: &str| Verdict::hold(reason, format!("{said}; {advice}"));
    let misconfigured = |advice: &str| hold(HoldReason::Misconfigured, advice);
    match answer.status {
        // Not a success in spite of its number: what a tenant gets whose ingestion is blocked.
        205..=299 => misconfigured("unblock the ingestion of this tenant in Loki"),
        400 if text.trim_start().starts_with('<') => {
            misconfigured("this is not Loki's answer: check `url` and proxies")
        }
        400 if text.contains("structured metadata, but this feature is disallowed") => {
            misconfigured("set allow_structured_metadata in Loki, or structured_metadata = false here")
        }
        400 if refused(&text) >= entries => Verdict::Partial {
            duplicate: Vec::new(),
            retry: Vec::new(),
            rejected: (0..entries).map(|index| (index, Rejection { reason: said.clone() })).collect(),
            after: None,
            ambiguous: false,
        },
        401 | 403 => hold(
            HoldReason::Credentials,
            "check `tenant`, `username` and `password`, or `bearer_token`, and what they may write",
        ),
        404 => hold(HoldReason::NotFound, "check the path of `url`: /loki/api/v1/push is added to it"),
        // The tenant's limit refuses a request whole, a stream's limit only the entries of that stream.
        429 => Verdict::Retry {
            ambiguous: !text.contains("ingestion rate limit exceeded"),
            cause: said,
            after: answer.retry_after,
        },
        // Between its own parts, the limit is one of gRPC.
        500 if text.contains("larger than max") => Verdict::TooLarge,
        _ => Verdict::from_status(answer),
    }
}

/// How many entries the answer says were refused, by the first that looks at them (`12 errors like: …; 3 errors like: …`)
/// or by the one that keeps them (`total ignored: 12 out of 15 for stream …`).
fn refused(text: &str) -> usize {
    let digits = |text: &str| text.parse::<usize>().unwrap_or_default();
    let alike = text.match_indices(" errors like: ").map(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        digits(before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default())
    });
    let ignored = text.match_indices("total ignored: ").map(|(at, found)| {
        let after = text.get(at + found.len()..).unwrap_or_default();
        digits(after.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default())
    });
    alike.chain(ignored).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        Answer { status, retry_after: None, body, cut: false, cookies: String::new() }
    }

    const BEHIND: &str = "entry with timestamp 2026-01-05 10:34:56 +0000 UTC ignored, reason: 'entry too far behind, \
        entry timestamp is: 2026-01-05T10:34:56Z, oldest acceptable timestamp is: 2026-01-05T12:00:00Z',\n\
        user 'fake', total ignored: 1 out of 3 for stream: {job=\"databricks-audit\"}";
    const DISALLOWED: &str = "stream '{job=\"x\"}' includes structured metadata, but this feature is disallowed. \
        Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it.";

    #[test]
    fn every_status_has_its_verdict() {
        for (status, body, expected) in [
            (204, "", "accepted"),
            (200, "", "accepted"),
            (205, "", "hold misconfigured"),
            (299, "", "hold misconfigured"),
            (260, "ingestion blocked for user fake until '2026-02-01'", "hold misconfigured"),
            (303, "", "hold misconfigured"),
            (400, BEHIND, "rejected"),
            (400, "max entry size '262144' bytes exceeded for stream '{}' while adding", "rejected"),
            (
                400,
                "…ignored, reason: 'entry too far behind',\nuser 'fake', total ignored: 3 out of 3",
                "partial",
            ),
            (400, "2 errors like: entry for stream '{}' has timestamp too old", "rejected"),
            (400, "3 errors like: entry for stream '{}' has timestamp too old", "partial"),
            (400, "1 errors like: line too long; 2 errors like: timestamp too new", "partial"),
            (400, DISALLOWED, "hold misconfigured"),
            (400, "<html>Bad Request</html>", "hold misconfigured"),
            (401, "no org id", "hold credentials"),
            (403, "", "hold credentials"),
            (404, "page not found", "hold not_found"),
            (405, "", "hold misconfigured"),
            (408, "", "retry true"),
            (413, "request body too large", "too_large"),
            (429, "Ingestion rate limit exceeded for user fake", "retry false"),
            (429, "ingestion rate limit exceeded for user fake", "retry false"),
            (429, "entry ignored, reason: 'Per stream rate limit exceeded'", "retry true"),
            (429, "Maximum active stream limit exceeded", "retry true"),
            (500, "rpc error: grpc: received message larger than max (5 vs. 4)", "too_large"),
            (500, "rpc error: code = Unknown", "retry true"),
            (502, "", "retry true"),
            (503, "", "retry false"),
            (504, "", "retry true"),
        ] {
            let verdict = match of_answer(&answer(status, body), 3) {
                Verdict::Hold(alarm) => format!("hold {}", alarm.reason.as_str()),
                Verdict::Retry { ambiguous, .. } => format!("retry {ambiguous}"),
                other => other.label().to_owned(),
            };
            assert_eq!(verdict, expected, "{status} {body}");
        }
    }

    #[test]
    fn the_wait_that_is_asked_for_is_passed_on() {
        let wait = Some(std::time::Duration::from_secs(7));
        for status in [429, 503] {
            let answer = Answer { retry_after: wait, ..answer(status, "") };
            let Verdict::Retry { after, .. } = of_answer(&answer, 2) else { panic!("{status} is a retry") };
            assert_eq!(after, wait, "{status}");
        }
    }

    #[test]
    fn a_hold_names_the_keys_of_this_output() {
        for (status, key) in [(401, "`tenant`"), (403, "`bearer_token`"), (404, "/loki/api/v1/push")] {
            let Verdict::Hold(alarm) = of_answer(&answer(status, ""), 2) else { panic!("{status} holds") };
            assert!(alarm.message.contains(key), "{}", alarm.message);
        }
    }

    #[test]
    fn a_success_is_no_reason_to_send_less() {
        assert_eq!(of_answer(&answer(204, ""), 2), Verdict::Accepted { slow_down: false });
    }

    #[test]
    fn entries_that_were_all_refused_are_not_asked_for_one_by_one() {
        let body = "2 errors like: entry for stream '{}' has timestamp too old: 2025-01-01";
        let Verdict::Partial { retry, rejected, ambiguous, .. } = of_answer(&answer(400, body), 2) else {
            panic!()
        };
        assert_eq!((retry, rejected.len(), ambiguous), (vec![], 2, false));
        assert!(rejected[1].1.reason.contains("timestamp too old"), "{rejected:?}");
    }
}
