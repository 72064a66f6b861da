use super::*;

fn answer(status: u16, body: &'static str) -> Answer {
    Answer { status, retry_after: None, body: body.into(), cut: false, cookies: String::new() }
}

fn hold_of(verdict: &Verdict) -> Option<HoldReason> {
    match verdict {
        Verdict::Hold(alarm) => Some(alarm.reason),
        _ => None,
    }
}

#[test]
fn every_status_has_its_verdict() {
    for (status, label, hold) in [
        (200, "accepted", None),
        (204, "accepted", None),
        (299, "accepted", None),
        (300, "hold", Some(HoldReason::Misconfigured)),
        (303, "hold", Some(HoldReason::Misconfigured)),
        (399, "hold", Some(HoldReason::Misconfigured)),
        (400, "rejected", None),
        (422, "rejected", None),
        (401, "hold", Some(HoldReason::Credentials)),
        (403, "hold", Some(HoldReason::Credentials)),
        (404, "hold", Some(HoldReason::NotFound)),
        (410, "hold", Some(HoldReason::NotFound)),
        (405, "hold", Some(HoldReason::Misconfigured)),
        (415, "hold", Some(HoldReason::Misconfigured)),
        (499, "hold", Some(HoldReason::Misconfigured)),
        (408, "retry", None),
        (413, "too_large", None),
        (429, "retry", None),
        (500, "retry", None),
        (502, "retry", None),
        (503, "retry", None),
        (504, "retry", None),
    ] {
        let verdict = Verdict::from_status(&answer(status, "no"));
        assert_eq!((verdict.label(), hold_of(&verdict)), (label, hold), "{status}");
    }
}

#[test]
fn a_retry_is_ambiguous_only_where_the_collector_may_have_taken_the_events() {
    for (status, expected) in [
        (100, true),
        (408, true),
        (425, false),
        (429, false),
        (500, true),
        (502, true),
        (503, false),
        (504, true),
    ] {
        let wait = Some(Duration::from_secs(7));
        let answer = Answer { retry_after: wait, ..answer(status, "") };
        let Verdict::Retry { ambiguous, after, .. } = Verdict::from_status(&answer) else {
            panic!("{status} is no retry");
        };
        assert_eq!((ambiguous, after), (expected, wait), "{status}");
    }
}

#[test]
fn a_success_alone_is_no_reason_to_send_less() {
    assert_eq!(Verdict::from_status(&answer(200, "")), Verdict::Accepted { slow_down: false });
}

#[test]
fn what_only_a_human_can_change_holds_instead_of_rejecting_every_event() {
    let failure = |human| NoAnswer { cause: "no".to_owned(), remedy: "; do", ambiguous: false, human };
    assert_eq!(Verdict::from(failure(true)), Verdict::hold(HoldReason::Misconfigured, "no; do"));
    assert_eq!(Verdict::from(failure(false)), Verdict::retry("no; do", None));
}

#[test]
fn a_secret_that_the_collector_repeats_is_blotted_out_of_every_text() {
    let rejection = || Rejection { reason: "bad hunter2".to_owned() };
    for verdict in [
        Verdict::retry("no hunter2", None),
        Verdict::hold(HoldReason::Credentials, "no hunter2 here"),
        Verdict::Rejected(rejection()),
        Verdict::Partial {
            duplicate: vec![],
            retry: vec![],
            rejected: vec![(0, rejection())],
            after: None,
            ambiguous: false,
        },
    ] {
        let text = format!("{:?}", verdict.redacted(&["hunter2"]));
        assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_secret_of_four_characters_is_blotted_out_and_a_shorter_one_would_garble() {
    let said = |secret| Verdict::retry("no abcd", None).redacted(&[secret]);
    assert_eq!(said("abcd"), Verdict::retry("no ***", None));
    assert_eq!(said("abc"), Verdict::retry("no abcd", None));
}
