//! What the answer to `_bulk` means: a status for the request, and within a 200 one for each document.

use serde::Deserialize;

use crate::http::Answer;
use crate::output::{HoldReason, Rejection, Verdict};

#[derive(Deserialize)]
struct Bulk {
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(alias = "index")]
    create: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    status: u16,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Default, Deserialize)]
#[serde(from = "Spelled")]
struct Failure {
    kind: String,
    reason: String,
}

/// Proxies and old servers give a text where an object is due.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelled {
    Object {
        #[serde(default, rename = "type")]
        kind: Option<String>,
        #[serde(default)]
        reason: Option<String>,
    },
    Text(String),
}

impl From<Spelled> for Failure {
    fn from(spelled: Spelled) -> Self {
        match spelled {
            Spelled::Object { kind, reason } => {
                Self { kind: kind.unwrap_or_default(), reason: reason.unwrap_or_default() }
            }
            Spelled::Text(reason) => Self { kind: String::new(), reason },
        }
    }
}

/// What becomes of one document.
#[derive(Debug, PartialEq)]
enum Fate {
    Created,
    Duplicate,
    Again,
    DiskFull,
    Refused,
    Held(HoldReason),
}

/// Longest reason that is kept.
const MAX_REASON_CHARACTERS: usize = 300;

/// The verdict on a request of so many documents.
pub(super) fn of_answer(answer: &Answer, documents: usize) -> Verdict {
    if !answer.is_success() {
        return of_request(answer);
    }
    if answer.cut && documents > 1 {
        // Documents that arrived answer 409 when they come again, so nothing is lost by asking for shorter answers.
        return Verdict::TooLarge;
    }
    match serde_json::from_slice::<Bulk>(&answer.body) {
        Ok(bulk) if !bulk.errors => Verdict::Accepted { slow_down: false },
        Ok(bulk) if bulk.items.len() == documents => of_items(&bulk.items, answer),
        _ => Verdict::Retry {
            cause: format!("{}; this is no whole answer to _bulk", answer.summary()),
            after: answer.retry_after,
            ambiguous: true,
        },
    }
}

fn of_request(answer: &Answer) -> Verdict {
    let misplaced =
        |advice: &str| Verdict::hold(HoldReason::Misconfigured, format!("{}; {advice}", answer.summary()));
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_ok();
    match answer.status {
        400 if !is_json => misplaced("this is not Elasticsearch's answer: check `url` and proxies"),
        400 if answer.excerpt().contains("no handler found") => misplaced("check the path of `url`"),
        _ => Verdict::from_status(answer),
    }
}

fn of_items(items: &[Item], answer: &Answer) -> Verdict {
    let fates: Vec<Fate> = items.iter().map(|item| fate(&item.create)).collect();
    let held = fates.iter().zip(items).find_map(|(fate, item)| match fate {
        Fate::Held(reason) => Some((*reason, &item.create)),
        _ => None,
    });
    if let Some((reason, outcome)) = held {
        let advice = match reason {
            HoldReason::Credentials => "give the credentials the right to create documents in `index`",
            HoldReason::NotFound => "create what `index` names, or allow its creation",
            _ => "correct the index, its template or pipeline, or `index`",
        };
        return Verdict::hold(reason, format!("Elasticsearch refused {}; {advice}", describe(outcome)));
    }
    if let Some(Item { create: first }) = items.first() {
        let first = describe(first);
        if fates.iter().all(|fate| *fate == Fate::DiskFull) {
            let message = format!("Elasticsearch refused {first}; free disk space there");
            return Verdict::hold(HoldReason::DiskFull, message);
        }
        if fates.iter().all(|fate| matches!(fate, Fate::Again | Fate::DiskFull)) {
            return Verdict::retry(format!("Elasticsearch put off {first}"), answer.retry_after);
        }
    }
    let places = |wanted: &[Fate]| -> Vec<usize> {
        fates.iter().enumerate().filter(|(_, fate)| wanted.contains(fate)).map(|(index, _)| index).collect()
    };
    let rejected = fates.iter().zip(items).enumerate().filter(|(_, (fate, _))| **fate == Fate::Refused);
    Verdict::Partial {
        duplicate: places(&[Fate::Duplicate]),
        retry: places(&[Fate::Again, Fate::DiskFull]),
        rejected: rejected
            .map(|(index, (_, item))| (index, Rejection { reason: describe(&item.create) }))
            .collect(),
        after: answer.retry_after,
    }
}

fn fate(outcome: &Outcome) -> Fate {
    let (kind, reason) = outcome.error.as_ref().map_or(("", ""), |failure| (&failure.kind, &failure.reason));
    match (outcome.status, kind) {
        (200..=299, _) => Fate::Created,
        (409, _) => Fate::Duplicate,
        // Old servers say 403 where newer ones say 429.
        (403 | 429, "cluster_block_exception") if reason.contains("disk usage exceeded") => Fate::DiskFull,
        (429 | 408 | 500..=599, _) => Fate::Again,
        (401, _) | (403, "security_exception") => Fate::Held(HoldReason::Credentials),
        (404, _) => Fate::Held(HoldReason::NotFound),
        (403, _) => Fate::Held(HoldReason::Misconfigured),
        (400, _) if is_about_the_index(kind, reason) => Fate::Held(HoldReason::Misconfigured),
        _ => Fate::Refused,
    }
}

/// Failures with the status of a bad document that any document would meet.
fn is_about_the_index(kind: &str, reason: &str) -> bool {
    matches!(kind, "invalid_index_name_exception" | "index_closed_exception" | "validation_exception")
        || (kind == "illegal_argument_exception"
            && ["pipeline with id", "no write index is defined"].iter().any(|text| reason.contains(text)))
}

fn describe(outcome: &Outcome) -> String {
    let text = match &outcome.error {
        Some(Failure { kind, reason }) => format!("{} {kind}: {reason}", outcome.status),
        None => outcome.status.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        Answer { status, retry_after: None, body, cut: false, cookies: String::new() }
    }

    fn item(status: u16, kind: &str, reason: &str) -> String {
        format!(
            r#"{{"create":{{"_id":"x","status":{status},"error":{{"type":"{kind}","reason":"{reason}"}}}}}}"#
        )
    }

    fn created() -> String {
        r#"{"create":{"status":201}}"#.to_owned()
    }

    fn of(items: &[String]) -> Verdict {
        let body = format!(r#"{{"took":3,"errors":true,"items":[{}]}}"#, items.join(","));
        of_answer(&answer(200, &body), items.len())
    }

    /// The fate of the first of two documents of which the second is created.
    fn beside_a_created_one(item: String) -> String {
        match of(&[item, created()]) {
            Verdict::Hold(alarm) => format!("hold {}", alarm.reason.as_str()),
            Verdict::Partial { duplicate, retry, rejected, .. } => {
                assert_eq!(duplicate.len() + retry.len() + rejected.len(), 1);
                let fates =
                    [("duplicate", duplicate.len()), ("retry", retry.len()), ("rejected", rejected.len())];
                fates.iter().find(|(_, count)| *count == 1).unwrap().0.to_owned()
            }
            other => other.label().to_owned(),
        }
    }

    #[test]
    fn every_item_has_its_fate() {
        let watermark =
            "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]";
        for (status, kind, reason, expected) in [
            (409, "version_conflict_engine_exception", "exists", "duplicate"),
            (429, "es_rejected_execution_exception", "", "retry"),
            (429, "circuit_breaking_exception", "", "retry"),
            (429, "cluster_block_exception", watermark, "retry"),
            (403, "cluster_block_exception", watermark, "retry"),
            (503, "unavailable_shards_exception", "", "retry"),
            (500, "exception", "", "retry"),
            (
                403,
                "cluster_block_exception",
                "blocked by: [FORBIDDEN/5/index read-only (api)]",
                "hold misconfigured",
            ),
            (403, "security_exception", "unauthorized", "hold credentials"),
            (404, "index_not_found_exception", "no such index", "hold not_found"),
            (400, "mapper_parsing_exception", "failed to parse", "rejected"),
            (400, "document_parsing_exception", "failed to parse", "rejected"),
            (400, "strict_dynamic_mapping_exception", "", "rejected"),
            (400, "illegal_argument_exception", "Limit of total fields [1000] has been exceeded", "rejected"),
            (400, "illegal_argument_exception", "pipeline with id [p] does not exist", "hold misconfigured"),
            (400, "invalid_index_name_exception", "", "hold misconfigured"),
            (400, "validation_exception", "maximum normal shards open", "hold misconfigured"),
            (413, "exception", "", "rejected"),
        ] {
            assert_eq!(
                beside_a_created_one(item(status, kind, reason)),
                expected,
                "{status} {kind}: {reason}"
            );
        }
    }

    #[test]
    fn a_full_disk_holds_only_when_no_document_got_in() {
        let full = || item(429, "cluster_block_exception", "disk usage exceeded flood-stage watermark");
        let Verdict::Hold(alarm) = of(&[full(), full()]) else { panic!("is held") };
        assert_eq!(alarm.reason, HoldReason::DiskFull);
    }

    #[test]
    fn a_request_of_which_nothing_got_in_is_a_retry() {
        let busy = || item(429, "es_rejected_execution_exception", "queue full");
        let Verdict::Retry { cause, ambiguous, .. } = of(&[busy(), busy()]) else { panic!("is a retry") };
        assert!(cause.contains("queue full") && !ambiguous, "{cause}");
    }

    #[test]
    fn places_are_those_of_the_request_and_the_reason_is_the_servers() {
        let items = [
            created(),
            item(409, "version_conflict_engine_exception", ""),
            item(400, "mapper_parsing_exception", "failed to parse field [x]"),
            item(429, "es_rejected_execution_exception", ""),
        ];
        let reason = "400 mapper_parsing_exception: failed to parse field [x]".to_owned();
        assert_eq!(
            of(&items),
            Verdict::Partial {
                duplicate: vec![1],
                retry: vec![3],
                rejected: vec![(2, Rejection { reason })],
                after: None
            }
        );
    }

    #[test]
    fn an_answer_that_is_not_whole_is_asked_for_again() {
        for body in [
            "",
            "{}",
            "<html>",
            r#"{"errors":true,"items":[{"create":{"status":201}}"#,
            r#"{"errors":true,"items":[]}"#,
        ] {
            let verdict = of_answer(&answer(200, body), 2);
            assert!(matches!(verdict, Verdict::Retry { ambiguous: true, .. }), "{body}: {verdict:?}");
        }
        let cut = Answer { cut: true, ..answer(200, r#"{"errors":true"#) };
        assert_eq!(of_answer(&cut, 2), Verdict::TooLarge);
        assert_eq!(of_answer(&cut, 1).label(), "retry");
    }

    #[test]
    fn a_request_goes_by_its_status() {
        for (status, body, expected) in [
            (200, r#"{"errors":false,"items":[]}"#, "accepted"),
            (400, r#"{"error":{"type":"action_request_validation_exception"}}"#, "rejected"),
            (400, r#"{"error":"no handler found for uri [/x/_bulk] and method [POST]"}"#, "hold"),
            (400, "<html>", "hold"),
            (401, "{}", "hold"),
            (403, "{}", "hold"),
            (404, "{}", "hold"),
            (406, "{}", "hold"),
            (408, "{}", "retry"),
            (413, "<html>", "too_large"),
            (415, "{}", "hold"),
            (429, r#"{"error":{"type":"circuit_breaking_exception"}}"#, "retry"),
            (500, "{}", "retry"),
            (502, "<html>", "retry"),
            (503, "{}", "retry"),
            (504, "", "retry"),
        ] {
            assert_eq!(of_answer(&answer(status, body), 2).label(), expected, "{status} {body}");
        }
    }

    #[test]
    fn an_error_that_is_a_plain_text_is_read_too() {
        let items = [r#"{"index":{"status":400,"error":"MapperParsingException[x]"}}"#.to_owned(), created()];
        let Verdict::Partial { rejected, .. } = of(&items) else { panic!("is partial") };
        assert!(rejected[0].1.reason.contains("MapperParsingException[x]"));
    }
}
