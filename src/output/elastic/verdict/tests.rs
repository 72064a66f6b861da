use super::*;

fn answer(status: u16, body: &str) -> Answer {
    let body = bytes::Bytes::copy_from_slice(body.as_bytes());
    Answer { status, retry_after: None, body, cut: false, cookies: String::new() }
}

fn item(status: u16, kind: &str, reason: &str) -> String {
    format!(r#"{{"create":{{"_id":"x","status":{status},"error":{{"type":"{kind}","reason":"{reason}"}}}}}}"#)
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
    let watermark = "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]";
    for (status, kind, reason, expected) in [
        (409, "version_conflict_engine_exception", "exists", "duplicate"),
        (429, "es_rejected_execution_exception", "", "retry"),
        (429, "circuit_breaking_exception", "", "retry"),
        (429, "cluster_block_exception", watermark, "retry"),
        (403, "cluster_block_exception", watermark, "retry"),
        (503, "unavailable_shards_exception", "", "retry"),
        (408, "timeout_exception", "", "retry"),
        (599, "exception", "", "retry"),
        (401, "exception", "", "hold credentials"),
        (400, "index_closed_exception", "closed", "hold misconfigured"),
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
        (400, "illegal_argument_exception", "no write index is defined for alias [a]", "hold misconfigured"),
        (400, "invalid_index_name_exception", "", "hold misconfigured"),
        (400, "validation_exception", "maximum normal shards open", "hold misconfigured"),
        (400, "resource_already_exists_exception", "index [a/x] already exists", "retry"),
        (400, "routing_missing_exception", "routing is required", "hold misconfigured"),
        (
            400,
            "illegal_argument_exception",
            "Document ID is not supported in create/index operation request",
            "hold misconfigured",
        ),
        (
            403,
            "cluster_block_exception",
            "blocked by: [FORBIDDEN/10/cluster create-index blocked (api)];",
            "retry",
        ),
        (413, "exception", "", "rejected"),
    ] {
        assert_eq!(beside_a_created_one(item(status, kind, reason)), expected, "{status} {kind}: {reason}");
    }
}

#[test]
fn a_full_disk_holds_only_when_no_document_got_in() {
    let full = || item(429, "cluster_block_exception", "disk usage exceeded flood-stage watermark");
    let Verdict::Hold(alarm) = of(&[full(), full()]) else { panic!("is held") };
    assert_eq!(alarm.reason, HoldReason::DiskFull);
}

#[test]
fn documents_that_were_all_created_are_accepted_whatever_success_they_are_given() {
    for status in [200, 201, 299] {
        let items = format!(r#"{{"create":{{"status":{status}}}}},{{"index":{{"status":{status}}}}}"#);
        let body = format!(r#"{{"errors":false,"items":[{items}]}}"#);
        assert_eq!(of_answer(&answer(200, &body), 2), Verdict::Accepted { slow_down: false }, "{status}");
    }
    let none = of_answer(&answer(200, r#"{"errors":false,"items":[]}"#), 2);
    assert_eq!(none, Verdict::Accepted { slow_down: false }, "nor where they are not listed");
}

#[test]
fn documents_that_are_all_put_off_for_one_reason_or_another_are_a_retry() {
    let full = item(429, "cluster_block_exception", "disk usage exceeded flood-stage watermark");
    let raced = || item(400, "resource_already_exists_exception", "index [a/x] already exists");
    assert_eq!(of(&[raced(), full]).label(), "retry");
    assert_eq!(of(&[raced(), raced()]).label(), "retry", "it is no full disk");
}

#[test]
fn the_wait_that_is_asked_for_is_passed_on() {
    let wait = Some(std::time::Duration::from_secs(7));
    let busy = item(429, "es_rejected_execution_exception", "queue full");
    let partial = format!(r#"{{"errors":true,"items":[{busy},{}]}}"#, created());
    for body in [partial.as_str(), "<html>"] {
        let answer = Answer { retry_after: wait, ..answer(200, body) };
        let (Verdict::Retry { after, .. } | Verdict::Partial { after, .. }) = of_answer(&answer, 2) else {
            panic!("{body} is to come again")
        };
        assert_eq!(after, wait, "{body}");
    }
}

#[test]
fn a_document_refused_without_a_word_is_told_by_its_status() {
    let Verdict::Partial { rejected, .. } = of(&[r#"{"create":{"status":400}}"#.to_owned(), created()])
    else {
        panic!("is partial")
    };
    assert_eq!(rejected, [(0, Rejection { reason: "400".to_owned() })]);
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
            after: None,
            ambiguous: false
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
        r#"{"errors":true,"items":[{"create":{"status":201}}]}"#,
        r#"{"errors":false,"items":[{"create":{"status":201}}]}"#,
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
        (200, r#"{"errors":false}"#, "accepted"),
        (400, r#"{"error":{"type":"action_request_validation_exception"}}"#, "rejected"),
        (400, r#"{"error":"no handler found for uri [/x/_bulk] and method [POST]"}"#, "hold"),
        (400, "<html>", "hold"),
        (400, r#"{"error":{"type":"parse_exception","reason":"request body is required"}}"#, "hold"),
        (400, r#"{"error":{"type":"invalid_index_name_exception","reason":"Invalid index name"}}"#, "hold"),
        (400, r#"{"error":{"reason":"The bulk request must be terminated by a newline [\\n]"}}"#, "hold"),
        (400, r#"{"error":{"reason":"request [/_bulk] contains unrecognized parameter: [x]"}}"#, "hold"),
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
fn a_block_of_the_cluster_is_no_matter_of_credentials() {
    let watermark = "[TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark]";
    for (status, reason, expected) in [
        (429, watermark, HoldReason::DiskFull),
        (403, "[FORBIDDEN/10/cluster create-index blocked (api)]", HoldReason::DiskFull),
        (403, "[FORBIDDEN/6/cluster read-only (api)]", HoldReason::Misconfigured),
    ] {
        let body = format!(r#"{{"error":{{"type":"cluster_block_exception","reason":"{reason}"}}}}"#);
        let Verdict::Hold(alarm) = of_answer(&answer(status, &body), 2) else { panic!("{reason} holds") };
        assert_eq!(alarm.reason, expected, "{reason}");
    }
}

#[test]
fn a_document_in_the_failure_store_is_not_delivered() {
    for status in [200, 201, 299] {
        let stored = format!(r#"{{"create":{{"status":{status},"failure_store":"used"}}}}"#);
        let body = format!(r#"{{"errors":false,"items":[{},{stored}]}}"#, created());
        let Verdict::Partial { rejected, .. } = of_answer(&answer(200, &body), 2) else { panic!("partial") };
        assert_eq!(rejected.len(), 1);
        assert_eq!((rejected[0].0, rejected[0].1.reason.contains("failure store")), (1, true));
    }
}

#[test]
fn the_reason_goes_down_to_its_cause() {
    let failed = r#"{"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse","caused_by":{"reason":"Duplicate field 'z'"}}}}"#;
    let Verdict::Partial { rejected, .. } = of(&[failed.to_owned(), created()]) else { panic!("partial") };
    let expected = "400 mapper_parsing_exception: failed to parse: Duplicate field 'z'";
    assert_eq!(rejected[0].1.reason, expected);
}

#[test]
fn an_error_that_is_a_plain_text_is_read_too() {
    let items = [r#"{"index":{"status":400,"error":"MapperParsingException[x]"}}"#.to_owned(), created()];
    let Verdict::Partial { rejected, .. } = of(&items) else { panic!("is partial") };
    assert!(rejected[0].1.reason.contains("MapperParsingException[x]"));
}

#[test]
fn a_request_is_held_for_the_reason_that_a_human_can_mend() {
    for (status, body, expected) in [
        (400, "<html>", HoldReason::Misconfigured),
        (400, r#"{"error":{"type":"invalid_index_name_exception"}}"#, HoldReason::Misconfigured),
        (401, "{}", HoldReason::Credentials),
        (403, r#"{"error":{"type":"security_exception"}}"#, HoldReason::Credentials),
        (404, r#"{"error":{"type":"index_not_found_exception"}}"#, HoldReason::NotFound),
    ] {
        let Verdict::Hold(alarm) = of_answer(&answer(status, body), 2) else { panic!("{body} holds") };
        assert_eq!(alarm.reason, expected, "{status} {body}");
    }
    let Verdict::Hold(alarm) = of(&[item(403, "security_exception", "no"), created()]) else {
        panic!("is held")
    };
    assert!(alarm.message.contains("the right to create documents in `index`"), "{}", alarm.message);
}

#[test]
fn a_hold_advises_about_what_is_missing() {
    let held = |status: u16, kind: &str| {
        let body = format!(r#"{{"error":{{"type":"{kind}","reason":"no"}}}}"#);
        match of_answer(&answer(status, &body), 1) {
            Verdict::Hold(alarm) => alarm.message,
            other => panic!("{other:?}"),
        }
    };
    for (status, kind, advice) in [
        (401, "security_exception", "check the credentials"),
        (404, "index_not_found_exception", "create what `index` names"),
        (404, "no_such_path", "check the path of `url`"),
        (403, "cluster_block_exception", "lift the block"),
    ] {
        let message = held(status, kind);
        assert!(message.contains(advice), "{status} {kind}: {message}");
    }
}
