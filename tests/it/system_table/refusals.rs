//! What is said where the table cannot be read, and that it goes on once that is put right.

use std::time::Duration;

use serde_json::json;

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Place, eventually, has, has_exactly, output, request_ids};
use crate::support::table::{Frozen, Shelf, noon, now, pass};
use crate::support::warehouse::{CLIENT, Rights, TOKEN, TableRow, WAREHOUSE, Workspace};

const MINUTE: Duration = Duration::from_secs(60);

async fn one_row() -> (Workspace, Shelf, Frozen) {
    let workspace = Workspace::start(now).await;
    let frozen = Frozen::start();
    workspace.insert([TableRow::new(noon(), noon(), 1)]);
    let shelf = Shelf::new(&workspace);
    pass(5 * MINUTE).await;
    (workspace, shelf, frozen)
}

#[tokio::test]
async fn every_missing_right_is_named_with_its_key_and_once_it_is_given_reading_goes_on() {
    let (workspace, mut shelf, _frozen) = one_row().await;
    let input = shelf.open();
    for (rights, told) in [
        (
            Rights { no_can_use: true, ..Rights::default() },
            "grant the reader CAN USE on the SQL warehouse of `warehouse_id`",
        ),
        (
            Rights { no_use_schema: true, ..Rights::default() },
            "GRANT USE SCHEMA ON SCHEMA system.access TO the reader",
        ),
        (
            Rights { no_select: true, ..Rights::default() },
            "GRANT SELECT ON TABLE system.access.audit TO the reader",
        ),
        (Rights { no_table: true, ..Rights::default() }, "enable the system schema `access`"),
    ] {
        workspace.set_rights(rights);
        let error = shelf.poll(&*input).await.unwrap_err();
        let text = error.to_string();
        assert!(error.needs_a_human() && text.contains(told), "{text}");
        assert!(
            text.starts_with("cannot read system.access.audit with warehouse") && !text.contains('\n'),
            "{text}"
        );
    }
    workspace.set_rights(Rights::default());
    shelf.poll(&*input).await.unwrap();
    assert_eq!(shelf.ids.len(), 1);
    workspace.was_spoken_to_properly();
}

#[tokio::test]
async fn a_warehouse_id_with_a_typo_is_named() {
    let (_workspace, mut shelf, _frozen) = one_row().await;
    shelf.set("warehouse_id", json!("4f2ab917c0de55e2"));
    let error = shelf.poll(&*shelf.open()).await.unwrap_err();
    let text = error.to_string();
    assert!(
        error.needs_a_human() && text.contains("check `warehouse_id`: the workspace has no such"),
        "{text}"
    );
}

#[tokio::test]
async fn an_expired_secret_holds_until_there_is_a_new_one_in_its_file() {
    let (workspace, mut shelf, _frozen) = one_row().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, CLIENT.1).unwrap();
    shelf.set("client_secret", json!({ "file": file }));
    let input = shelf.open();
    workspace.set_secret("another");
    let error = shelf.poll(&*input).await.unwrap_err();
    let text = error.to_string();
    assert!(error.needs_a_human() && text.contains("check `client_id` and `client_secret`"), "{text}");
    assert!(text.contains("invalid_client") && !text.contains("hunter2"), "{text}");
    std::fs::write(&file, "another").unwrap();
    shelf.poll(&*input).await.unwrap();
    assert_eq!(shelf.ids.len(), 1);
}

#[tokio::test]
async fn tokens_are_used_again_renewed_before_they_expire_and_when_they_are_revoked() {
    let (workspace, mut shelf, _frozen) = one_row().await;
    let input = shelf.open();
    shelf.poll(&*input).await.unwrap();
    pass(5 * MINUTE).await;
    shelf.poll(&*input).await.unwrap();
    assert_eq!(workspace.tokens_given(), 1);
    workspace.revoke_tokens();
    pass(5 * MINUTE).await;
    shelf.poll(&*input).await.unwrap();
    assert_eq!(workspace.tokens_given(), 2);
    pass(56 * MINUTE).await;
    let refused = workspace.asked("");
    shelf.poll(&*input).await.unwrap();
    assert_eq!(workspace.tokens_given(), 3);
    let next = workspace.log()[refused].clone();
    assert_eq!(next, "POST /oidc/v1/token", "not only after a refusal");
    workspace.was_spoken_to_properly();
}

#[tokio::test]
async fn a_personal_access_token_does_as_well() {
    let (workspace, mut shelf, _frozen) = one_row().await;
    shelf.set("client_id", json!(null)).set("client_secret", json!(null)).set("token", json!(TOKEN));
    shelf.poll(&*shelf.open()).await.unwrap();
    assert_eq!((shelf.ids.len(), workspace.tokens_given()), (1, 0));
    shelf.set("token", json!("dapi-hunter3"));
    pass(5 * MINUTE).await;
    let error = shelf.poll(&*shelf.open()).await.unwrap_err();
    let text = error.to_string();
    assert!(error.needs_a_human() && text.contains("check `token`") && !text.contains("hunter3"), "{text}");
}

#[tokio::test]
async fn a_workspace_that_is_busy_is_left_alone_for_as_long_as_it_asks() {
    let (workspace, mut shelf, _frozen) = one_row().await;
    let input = shelf.open();
    workspace.be_busy(&[(429, "17"), (503, "3")]);
    for seconds in [17, 3] {
        let error = shelf.poll(&*input).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds)), "{error}");
        assert!(!error.needs_a_human());
    }
    shelf.poll(&*input).await.unwrap();
    assert_eq!(shelf.ids.len(), 1);
}

#[tokio::test]
async fn a_statement_that_is_cancelled_closed_or_forgotten_is_started_again() {
    let (workspace, mut shelf, _frozen) = one_row().await;
    let input = shelf.open();
    for state in ["CANCELED", "CLOSED", "GONE"] {
        workspace.end_next(state);
        let error = shelf.poll(&*input).await.unwrap_err();
        assert!(!error.needs_a_human(), "{error}");
    }
    shelf.poll(&*input).await.unwrap();
    assert_eq!(shelf.ids.len(), 1);
}

#[tokio::test]
async fn a_stopped_warehouse_is_waited_for() {
    let workspace = Workspace::start(now).await;
    workspace.insert([TableRow::new(noon().minus(MINUTE), noon().minus(MINUTE), 1)]);
    workspace.set_pending(3);
    let mut shelf = Shelf::new(&workspace);
    shelf.set("start_time", json!("2026-01-05T11:00:00Z")).set("safety_margin", json!("0s"));
    shelf.poll(&*shelf.open()).await.unwrap();
    assert_eq!(shelf.ids.len(), 1);
    assert_eq!(workspace.canceled(), 0);
    workspace.was_spoken_to_properly();
}

#[tokio::test]
async fn a_statement_that_never_ends_is_given_up_and_cancelled() {
    let (workspace, mut shelf, _frozen) = one_row().await;
    workspace.set_pending(u32::MAX);
    shelf.set("timeout", json!("1d"));
    let input = shelf.open();
    assert_eq!(shelf.read_uncommitted(&*input, 1).await, 1, "where reading begins");
    let began = now();
    let passing = async {
        loop {
            pass(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::select! {
        read = input.read() => read.unwrap_err(),
        () = passing => unreachable!(),
    };
    assert!(!error.needs_a_human() && error.to_string().contains("did not end within 30m"), "{error}");
    assert!(began.until(now()) > 30 * MINUTE);
    input.close().await;
    assert_eq!((workspace.left_running(), workspace.canceled()), (0, 1));
}

#[tokio::test]
async fn a_statement_under_way_is_cancelled_when_reading_stops() {
    let workspace = Workspace::start(now).await;
    workspace.insert([TableRow::new(noon().minus(MINUTE), noon().minus(MINUTE), 1)]);
    workspace.set_pending(1000);
    let mut shelf = Shelf::new(&workspace);
    shelf.set("start_time", json!("2026-01-05T11:00:00Z"));
    let input = shelf.open();
    assert_eq!(shelf.read_uncommitted(&*input, 1).await, 1, "where reading begins");
    tokio::select! {
        read = input.read() => panic!("{read:?}"),
        () = eventually("a statement that runs", || workspace.asked("GET /api/2.0/sql/statements/") > 1) => {}
    }
    assert_eq!(workspace.left_running(), 1);
    input.close().await;
    assert_eq!((workspace.left_running(), workspace.canceled()), (0, 1));
}

fn now_really() -> auditferry::time::Millis {
    auditferry::time::Millis::new(jiff::Timestamp::now().as_millisecond()).unwrap()
}

/// The table in a configuration beside the bucket of a place.
fn table(workspace: &Workspace, secret_file: &std::path::Path) -> String {
    let (hour, hours_ago) = (Duration::from_secs(3600), now_really().minus(Duration::from_secs(3 * 3600)));
    let mut start = Vec::new();
    hours_ago.minus(hour).write_rfc3339(&mut start);
    format!(
        "[inputs.table]\ntype = 'system_table'\nurl = '{}'\nwarehouse_id = '{WAREHOUSE}'\nclient_id = '{}'\n\
         client_secret = {{ file = '{}' }}\npoll_interval = '1s'\nsafety_margin = '0s'\nstart_time = '{}'\nproxy = 'none'\n",
        workspace.url(),
        CLIENT.0,
        secret_file.display(),
        String::from_utf8(start).unwrap()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_holds_says_why_and_goes_on_without_a_restart_and_cancels_at_the_end() {
    let workspace = Workspace::start(now_really).await;
    let row = |number: u64| {
        let time = now_really().minus(Duration::from_secs(3600 + number));
        TableRow::new(time, time, number)
    };
    workspace.insert((0..500).map(row));
    workspace.set_secret("renewed");
    let place = Place::new();
    let secret = place.beside("client-secret");
    std::fs::write(&secret, CLIENT.1).unwrap();
    let collector = Collector::start(Protocol::Sumo).await;
    let outputs = [table(&workspace, &secret), output(&collector, "")];
    let ferry = place.start("", &outputs).await;
    let route = ferry.app.routes.iter().find(|route| route.input_name == "table").unwrap();
    let status = route.status.clone();
    let held = || {
        status
            .snapshot()
            .reason
            .is_some_and(|reason| reason.contains("check `client_id` and `client_secret`"))
    };
    eventually("the hold", held).await;
    std::fs::write(&secret, "renewed").unwrap();
    has(&collector, 500).await;
    assert!(request_ids(&collector).contains("ServiceMain-499"));
    eventually("all well", || status.snapshot().reason.is_none()).await;
    workspace.insert([row(500)]);
    has(&collector, 501).await;
    ferry.rests().await;
    has_exactly(&collector, 501);
    workspace.set_pending(1000);
    eventually("a statement that runs", || workspace.left_running() > 0).await;
    ferry.stop().await;
    assert_eq!(workspace.left_running(), 0, "it was cancelled");
    workspace.was_spoken_to_properly();
}
