//! What finding new objects costs: a request is money and time, and a bucket keeps years.

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Place, eventually, has, has_exactly, output, record, today};
use crate::support::store::{Listing, Store};

const WORKSPACES: i64 = 5;
const DAYS: i64 = 30;
const OBJECTS_A_DAY: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_look_and_each_poll_take_one_request_a_workspace_and_a_poll_sees_the_open_dates_only() {
    let (mut place, store) = (Place::new(), Store::start().await);
    let hec = Collector::start(Protocol::Hec).await;
    place.url = Some("s3://audit/logs".to_owned());
    let mut total = 0;
    for workspace in 0..WORKSPACES {
        for day in 0..DAYS {
            for object in 0..OBJECTS_A_DAY {
                let folder = format!("logs/workspaceId={workspace}/date={}", today().plus_days(-day));
                let line = record(&format!("{workspace}-{day}-{object}")) + "\n";
                store.put(&format!("{folder}/auditlogs_{object}.json"), line);
                total += 1;
            }
        }
    }
    let input = format!("s3 = {{ endpoint = '{}', allow_http = true, anonymous = true }}\n", store.url());
    let ferry = place.start(&input, &[output(&hec, "")]).await;
    has(&hec, total).await;
    let listing = |workspace: i64, after: String, days: i64| Listing {
        prefix: format!("logs/workspaceId={workspace}/"),
        after,
        shown: usize::try_from(days).unwrap() * OBJECTS_A_DAY,
    };
    let mut first: Vec<_> = store.listings().into_iter().take(6).collect();
    first.sort();
    let mut expected = vec![Listing { prefix: "logs/".to_owned(), after: String::new(), shown: 5 }];
    expected.extend((0..WORKSPACES).map(|workspace| listing(workspace, String::new(), DAYS)));
    assert_eq!(first, expected);

    // Some minute of the day, closed dates are due: the polls before and after it see none.
    eventually("a poll that sees nothing but the open dates", || {
        let mut last = store.listings().split_off(6);
        last = last.split_off(last.len().saturating_sub(5));
        last.sort();
        let after = |workspace| format!("logs/workspaceId={workspace}/date={}", today().plus_days(-1));
        last.into_iter().eq((0..WORKSPACES).map(|workspace| listing(workspace, after(workspace), 2)))
    })
    .await;

    // What comes late into a closed date is another look's to find; what comes today, the next poll's.
    let new = format!("logs/workspaceId=0/date={}/auditlogs_new.json", today());
    store.put(&new, record("new") + "\n");
    has(&hec, total + 1).await;
    ferry.rests().await;
    ferry.stop().await;
    has_exactly(&hec, total + 1);
}
