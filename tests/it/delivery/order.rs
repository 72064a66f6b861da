//! In which order the events of a request stand.

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Place, has, output, record};

/// Six records, each action in turn.
fn records() -> String {
    let action = |id: &str| if matches!(id, "a" | "c" | "e") { "login" } else { "logout" };
    ["a", "b", "c", "d", "e", "f"]
        .map(|id| record(id).replace("\"login\"", &format!("\"{}\"", action(id))) + "\n")
        .concat()
}

/// The request ids in the order they arrived in, of a request with all six.
async fn arrived(protocol: Protocol, keys: &str) -> String {
    let (place, collector) = (Place::new(), Collector::start(protocol).await);
    place.put("a.json", records());
    let ferry = place
        .start("", &[output(&collector, &format!("batch.max_events = 6\nformat = 'canonical'\n{keys}"))])
        .await;
    has(&collector, 6).await;
    ferry.stop().await;
    assert_eq!(collector.count_requests(), 1);
    let id = |event: serde_json::Value| event["request_id"].as_str().unwrap_or_default().to_owned();
    collector.events().into_iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_gzip_events_of_one_action_stand_side_by_side_where_the_collector_goes_by_their_time() {
    for protocol in [Protocol::Hec, Protocol::Sumo, Protocol::Bulk] {
        let order = arrived(protocol, "compression = 'gzip'").await;
        assert!(["acebdf", "bdface"].contains(&order.as_str()), "{protocol:?}: {order}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn elsewhere_events_stand_as_they_were_read() {
    for (protocol, keys) in [
        (Protocol::Hec, "compression = 'none'"),
        (Protocol::Sumo, "compression = 'zstd'"),
        (Protocol::Any, "compression = 'gzip'"),
    ] {
        assert_eq!(arrived(protocol, keys).await, "abcdef", "{protocol:?}");
    }
}
