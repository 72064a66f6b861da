//! What the answer to `_bulk` means: a status for the request, and within a 200 one for each document.

use serde::Deserialize;

use crate::http::Answer;
use crate::output::{HoldReason, Rejection, Verdict};
use crate::secret::excerpt;

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
    /// `used` where a data stream refused the document and its failure store took it.
    #[serde(default)]
    failure_store: Option<String>,
}

/// The answer to a request that was refused as a whole.
#[derive(Deserialize)]
struct Refusal {
    error: Failure,
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
        #[serde(default)]
        caused_by: Option<Cause>,
    },
    Text(String),
}

/// Where the reason is no more than "failed to parse", this says what.
#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: Option<String>,
}

impl From<Spelled> for Failure {
    fn from(spelled: Spelled) -> Self {
        match spelled {
            Spelled::Object { kind, reason, caused_by } => {
                let reason = reason.unwrap_or_default();
                let cause = caused_by.and_then(|cause| cause.reason).unwrap_or_default();
                let reason = match reason.contains(&cause) {
                    true => reason,
                    false => format!("{reason}: {cause}"),
                };
                Self { kind: kind.unwrap_or_default(), reason }
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
        Ok(bulk) if bulk.items.len() == documents => of_items(&bulk, answer),
        Ok(Bulk { errors: false, items }) if items.is_empty() => Verdict::Accepted { slow_down: false },
        // Whoever answered saw another request, or not all of this one.
        _ => Verdict::Retry {
            cause: format!("{}; this is no whole answer to _bulk", answer.summary()),
            after: answer.retry_after,
            ambiguous: true,
        },
    }
}

fn of_request(answer: &Answer) -> Verdict {
    let held =
        |reason: HoldReason, advice: &str| Verdict::hold(reason, format!("{}; {advice}", answer.summary()));
    let misplaced = |advice: &str| held(HoldReason::Misconfigured, advice);
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_ok();
    let Failure { kind, reason } =
        serde_json::from_slice::<Refusal>(&answer.body).map(|refusal| refusal.error).unwrap_or_default();
    match (answer.status, kind.as_str()) {
        (403 | 429, "cluster_block_exception") if is_about_the_disk(&reason) => {
            held(HoldReason::DiskFull, FREE_DISK)
        }
        (403, "cluster_block_exception") => misplaced("lift the block"),
        (404, "index_not_found_exception") => held(HoldReason::NotFound, advice(HoldReason::NotFound)),
        (400, _) if !is_json => misplaced("this is not Elasticsearch's answer: check `url` and proxies"),
        (400, _) if reason.contains("no handler found") => misplaced("check the path of `url`"),
        (400, _) if is_about_the_body(&reason) => {
            misplaced("the body arrived changed: check what is between here and the server")
        }
        (400, kind) if is_about_the_index(kind, &reason) => misplaced(advice(HoldReason::Misconfigured)),
        _ => Verdict::from_status(answer),
    }
}

/// What to do about a full disk.
const FREE_DISK: &str = "free disk space there";

/// What to do about a hold for other reasons.
fn advice(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::Credentials => "give the credentials the right to create documents in `index`",
        HoldReason::NotFound => "create what `index` names, or allow its creation",
        _ => "correct the index, its template or pipeline, or `index`",
    }
}

fn of_items(Bulk { errors, items }: &Bulk, answer: &Answer) -> Verdict {
    let fates: Vec<Fate> = items.iter().map(|item| fate(&item.create)).collect();
    let held = fates.iter().zip(items).find_map(|(fate, item)| match fate {
        Fate::Held(reason) => Some((*reason, &item.create)),
        _ => None,
    });
    if let Some((reason, outcome)) = held {
        let advice = advice(reason);
        return Verdict::hold(reason, format!("Elasticsearch refused {}; {advice}", describe(outcome)));
    }
    // Only a document in the failure store is no error to the server.
    if !errors && fates.iter().all(|fate| *fate == Fate::Created) {
        return Verdict::Accepted { slow_down: false };
    }
    if let Some(Item { create: first }) = items.first() {
        let first = describe(first);
        if fates.iter().all(|fate| *fate == Fate::DiskFull) {
            let message = format!("Elasticsearch refused {first}; {FREE_DISK}");
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
        ambiguous: false,
    }
}

fn fate(outcome: &Outcome) -> Fate {
    let (kind, reason) = outcome.error.as_ref().map_or(("", ""), |failure| (&failure.kind, &failure.reason));
    match (outcome.status, kind) {
        // It is not where it belongs, and comes there when it is replayed after the mapping was corrected.
        (200..=299, _) if outcome.failure_store.as_deref() == Some("used") => Fate::Refused,
        (200..=299, _) => Fate::Created,
        (409, _) => Fate::Duplicate,
        // Old servers say 403 where newer ones say 429.
        (403 | 429, "cluster_block_exception") if is_about_the_disk(reason) => Fate::DiskFull,
        (429 | 408 | 500..=599, _) => Fate::Again,
        // Two requests made the index at once.
        (400, "resource_already_exists_exception") => Fate::Again,
        (401, _) | (403, "security_exception") => Fate::Held(HoldReason::Credentials),
        (404, _) => Fate::Held(HoldReason::NotFound),
        (403, _) => Fate::Held(HoldReason::Misconfigured),
        (400, _) if is_about_the_index(kind, reason) => Fate::Held(HoldReason::Misconfigured),
        _ => Fate::Refused,
    }
}

/// A block that the server sets by itself when its disks fill up, and lifts when they no longer are.
fn is_about_the_disk(reason: &str) -> bool {
    ["disk usage exceeded", "create-index blocked"].iter().any(|text| reason.contains(text))
}

/// Failures with the status of a bad document that any document would meet.
fn is_about_the_index(kind: &str, reason: &str) -> bool {
    const REASONS: [&str; 3] = [
        "pipeline with id",
        "no write index is defined",
        // A time series or vector collection of OpenSearch Serverless makes the ids itself: only `search` takes ours.
        "Document ID is not supported",
    ];
    matches!(
        kind,
        "invalid_index_name_exception"
            | "index_closed_exception"
            | "routing_missing_exception"
            | "validation_exception"
    ) || (kind == "illegal_argument_exception" && REASONS.iter().any(|text| reason.contains(text)))
}

/// Complaints about a body that any batch would meet: somebody on the way emptied or changed it.
fn is_about_the_body(reason: &str) -> bool {
    ["request body is required", "must be terminated by a newline", "unrecognized parameter"]
        .iter()
        .any(|text| reason.contains(text))
}

fn describe(outcome: &Outcome) -> String {
    let text = match &outcome.error {
        Some(Failure { kind, reason }) => format!("{} {kind}: {reason}", outcome.status),
        None if outcome.failure_store.is_some() => "into the failure store of the data stream".to_owned(),
        None => outcome.status.to_string(),
    };
    excerpt(&text, MAX_REASON_CHARACTERS)
}

#[cfg(test)]
mod tests;
