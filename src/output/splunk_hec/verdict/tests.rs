use bytes::Bytes;

use super::*;
use crate::compress::Encoding;

fn answer(status: u16, body: &str) -> Answer {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Answer { status, retry_after: None, body, cut: false, cookies: String::new() }
}

fn verdict(status: u16, body: &str, events: usize, uncompressed_bytes: usize) -> Verdict {
    let request = Request { body: Bytes::new(), encoding: Encoding::None, events, uncompressed_bytes };
    of_answer(&answer(status, body), &request, Terms::default())
}

fn coded(status: u16, code: u16) -> String {
    let verdict = verdict(status, &format!(r#"{{"text":"t","code":{code}}}"#), 5, 100);
    match verdict {
        Verdict::Hold(alarm) => format!("hold {}", alarm.reason.as_str()),
        Verdict::Accepted { slow_down } => format!("accepted {slow_down}"),
        Verdict::Retry { ambiguous, .. } => format!("retry {ambiguous}"),
        other => other.label().to_owned(),
    }
}

#[test]
fn every_code_has_its_verdict() {
    for (code, status, expected) in [
        (0, 200, "accepted false"),
        (1, 403, "hold credentials"),
        (2, 401, "hold credentials"),
        (3, 401, "hold credentials"),
        (4, 403, "hold credentials"),
        (5, 400, "hold misconfigured"),
        (6, 400, "rejected"),
        (7, 400, "hold misconfigured"),
        (8, 500, "retry true"),
        (9, 503, "retry false"),
        (10, 400, "hold misconfigured"),
        (11, 400, "hold misconfigured"),
        (12, 400, "rejected"),
        (13, 400, "rejected"),
        (14, 400, "hold misconfigured"),
        (15, 400, "rejected"),
        (16, 400, "hold misconfigured"),
        (17, 200, "hold misconfigured"),
        (18, 503, "retry false"),
        (19, 503, "retry false"),
        (20, 503, "retry false"),
        (21, 400, "hold misconfigured"),
        (22, 400, "hold misconfigured"),
        (23, 503, "retry false"),
        (24, 200, "accepted true"),
        (25, 200, "accepted true"),
        (26, 429, "retry false"),
        (27, 429, "retry false"),
        (28, 400, "hold misconfigured"),
        (99, 400, "rejected"),
        (0, 503, "retry false"),
    ] {
        assert_eq!(coded(status, code), expected, "code {code}");
    }
}

#[test]
fn a_code_says_more_than_the_status_it_comes_with() {
    for (status, code, expected) in [
        (400, 1, "hold credentials"),
        (400, 2, "hold credentials"),
        (400, 3, "hold credentials"),
        (400, 4, "hold credentials"),
        (503, 8, "retry true"),
        (500, 18, "retry false"),
        (500, 19, "retry false"),
        (500, 20, "retry false"),
        (500, 23, "retry false"),
        (500, 26, "retry false"),
        (500, 27, "retry false"),
        (503, 24, "retry false"),
        (503, 25, "retry false"),
    ] {
        assert_eq!(coded(status, code), expected, "code {code} with {status}");
    }
}

#[test]
fn the_wait_that_is_asked_for_is_passed_on() {
    let wait = Some(std::time::Duration::from_secs(7));
    for body in [
        r#"{"text":"Internal server error","code":8}"#,
        r#"{"text":"Server is busy","code":9}"#,
        r#"{"text":"Server is busy","code":9,"invalid-event-number":1}"#,
        r#"{"text":"Queue at capacity","code":26}"#,
    ] {
        let request =
            Request { body: Bytes::new(), encoding: Encoding::None, events: 5, uncompressed_bytes: 9 };
        let answer = Answer { retry_after: wait, ..answer(503, body) };
        let (Verdict::Retry { after, .. } | Verdict::Partial { after, .. }) =
            of_answer(&answer, &request, Terms::default())
        else {
            panic!("{body} is to come again")
        };
        assert_eq!(after, wait, "{body}");
    }
}

#[test]
fn a_refused_event_leaves_those_before_it_in_and_sends_only_those_after_it_again() {
    for code in [6, 12, 13, 15] {
        let body = format!(r#"{{"text":"Invalid data format","code":{code},"invalid-event-number":2}}"#);
        let reason = format!("Invalid data format (HEC code {code})");
        assert_eq!(
            verdict(400, &body, 5, 100),
            Verdict::Partial {
                duplicate: vec![],
                retry: vec![3, 4],
                rejected: vec![(2, Rejection { reason })],
                after: None,
                ambiguous: false
            }
        );
    }
}

#[test]
fn the_reason_of_a_refusal_is_one_short_line_whatever_the_server_says() {
    let text = "no\\n".repeat(10_000);
    let body = format!(r#"{{"text":"{text}","code":6,"invalid-event-number":0}}"#);
    let Verdict::Partial { rejected, .. } = verdict(400, &body, 1, 100) else { panic!("not partial") };
    let reason = &rejected[0].1.reason;
    assert!(reason.len() < 400 && !reason.contains('\n'), "{} bytes", reason.len());
    assert!(reason.ends_with("(HEC code 6)"), "{reason}");
    let silent = verdict(400, r#"{"code":6}"#, 1, 100);
    assert_eq!(silent, Verdict::rejected("refused by HEC (HEC code 6)"));
}

#[test]
fn a_large_body_refused_at_its_first_event_is_too_large_until_one_event_is_left() {
    let body = r#"{"text":"Invalid data format","code":6,"invalid-event-number":0}"#;
    assert_eq!(verdict(400, body, 5, 1_000_001), Verdict::TooLarge);
    assert_eq!(verdict(400, body, 2, 1_000_001), Verdict::TooLarge);
    assert_eq!(verdict(400, body, 5, 1_000_000).label(), "partial");
    assert_eq!(verdict(400, body, 1, 2_000_000).label(), "partial");
}

#[test]
fn a_number_beyond_the_batch_is_not_trusted() {
    let body = r#"{"text":"Invalid data format","code":6,"invalid-event-number":5}"#;
    assert_eq!(verdict(400, body, 5, 100).label(), "rejected");
}

#[test]
fn a_busy_server_gets_again_what_lies_behind_the_point_where_it_stopped() {
    let body = r#"{"text":"Server is busy","code":9,"invalid-event-number":3}"#;
    assert_eq!(
        verdict(503, body, 5, 100),
        Verdict::Partial {
            duplicate: vec![],
            retry: vec![3, 4],
            rejected: vec![],
            after: None,
            ambiguous: false
        }
    );
    let body = r#"{"text":"Server is busy","code":9,"invalid-event-number":1}"#;
    let Verdict::Partial { retry, .. } = verdict(503, body, 5, 100) else { panic!("the first is in") };
    assert_eq!(retry, [1, 2, 3, 4]);
    let body = r#"{"text":"Server is busy","code":9,"invalid-event-number":0}"#;
    assert_eq!(verdict(503, body, 5, 100).label(), "retry");
}

#[test]
fn with_ack_nothing_of_a_refused_batch_counts_as_delivered() {
    let request = Request { body: Bytes::new(), encoding: Encoding::None, events: 5, uncompressed_bytes: 9 };
    let terms = Terms { ack: true, index_varies: false };
    let judged = |status, code, number| {
        let body = format!(r#"{{"text":"t","code":{code},"invalid-event-number":{number}}}"#);
        of_answer(&answer(status, &body), &request, terms)
    };
    for code in [6, 12, 13, 15] {
        for number in 0..5 {
            let Verdict::Partial { retry, rejected, ambiguous, .. } = judged(400, code, number) else {
                panic!("{code} {number}")
            };
            let others: Vec<usize> = (0..5).filter(|index| *index != number).collect();
            assert_eq!((retry, rejected[0].0, ambiguous), (others, number, number > 0));
        }
    }
    assert_eq!(judged(503, 9, 0).label(), "retry");
    assert!(matches!(judged(503, 9, 3), Verdict::TooSlow { .. }));
}

#[test]
fn an_answer_that_is_not_splunks_goes_by_its_status() {
    for (status, body, expected) in [
        (200, "", "accepted"),
        (201, "OK", "accepted"),
        (303, "See other", "hold"),
        (404, "<html>", "hold"),
        (400, "<html>Bad Request</html>", "hold"),
        (400, r#""No""#, "rejected"),
        (413, "<html>", "too_large"),
        (500, r#""Internal Server Error""#, "retry"),
        (502, "", "retry"),
    ] {
        assert_eq!(verdict(status, body, 2, 100).label(), expected, "{status} {body}");
    }
    let Verdict::Hold(alarm) = verdict(400, "<html>", 2, 100) else { panic!("is held") };
    assert_eq!(alarm.reason, HoldReason::Misconfigured);
}

#[test]
fn a_wrong_index_is_narrowed_down_where_events_have_several_and_never_the_events_fault() {
    let request =
        |events| Request { body: Bytes::new(), encoding: Encoding::None, events, uncompressed_bytes: 9 };
    let answer = answer(400, r#"{"text":"Incorrect index","code":7,"invalid-event-number":1}"#);
    let varies = Terms { index_varies: true, ack: false };
    assert_eq!(of_answer(&answer, &request(2), varies).label(), "rejected");
    assert_eq!(of_answer(&answer, &request(1), varies).label(), "hold");
    assert_eq!(of_answer(&answer, &request(2), Terms::default()).label(), "hold");
}

#[test]
fn only_a_number_answered_with_true_is_acknowledged() {
    let poll = answer(200, r#"{"acks":{"0":true,"1":false}}"#);
    assert_eq!([0, 1, 2].map(|number| is_acknowledged(&poll, number)), [true, false, false]);
    assert!(!is_acknowledged(&answer(503, "busy"), 0));
    let disabled = answer(400, r#"{"text":"ACK is disabled","code":14}"#);
    assert!(acknowledges_no_more(&disabled) && !acknowledges_no_more(&poll));
    assert_eq!(ack_number(&answer(200, r#"{"text":"Success","code":0,"ackId":4}"#)), Some(4));
}

#[test]
fn a_server_is_well_unless_it_says_otherwise() {
    for (status, code, ack, expected) in [
        (200, "17", true, None),
        (503, "17", true, None),
        (403, "1", false, Some("hold")),
        (401, "2", false, Some("hold")),
        (401, "3", false, Some("hold")),
        (403, "4", false, Some("hold")),
        (401, "null", false, Some("hold")),
        (403, "null", false, Some("hold")),
        (429, "null", false, Some("retry")),
        (500, "null", false, Some("retry")),
        (599, "null", false, Some("retry")),
        (503, "18", true, Some("retry")),
        (503, "19", true, Some("retry")),
        (503, "19", false, None),
        (503, "20", false, Some("retry")),
        (400, "21", false, Some("hold")),
        (400, "22", false, Some("hold")),
        (503, "null", false, Some("retry")),
        (404, "null", false, None),
    ] {
        let answer = answer(status, &format!(r#"{{"text":"t","code":{code}}}"#));
        let verdict = of_health(&answer, ack);
        if let Some(Verdict::Hold(alarm)) = &verdict {
            assert_eq!(alarm.reason, HoldReason::Credentials, "{status} {code}");
        }
        assert_eq!(verdict.map(|verdict| verdict.label()), expected, "{status} {code} {ack}");
    }
}

#[test]
fn only_what_comes_behind_the_check_of_the_token_shows_that_it_is_known() {
    for code in 0..=28 {
        let known = [0, 5, 6, 12, 13, 15, 24, 25].contains(&code);
        let answer = answer(400, &format!(r#"{{"text":"t","code":{code}}}"#));
        assert_eq!(knows_the_token(&answer), known, "{code}");
    }
    assert!(knows_the_token(&answer(200, "OK")), "a success without a code");
    assert!(!knows_the_token(&answer(403, "<html>")));
}
