//! A collector that refuses one event after the other: bad events, or a wrong setting.

use std::time::Duration;

use auditferry::status::Phase;

use crate::support::collector::{Collector, Protocol, Step};
use crate::support::ferry::{Place, eventually, has, output, record};

fn records(name: &str, count: usize) -> String {
    (0..count).map(|number| record(&format!("{name}{number}")) + "\n").collect()
}

const QUICK: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_refuses_everything_is_held_before_the_backlog_becomes_dead_letters() {
    for protocol in [Protocol::Hec, Protocol::Bulk, Protocol::Any] {
        let (place, collector) = (Place::new(), Collector::start(protocol).await);
        collector.set_poison("r");
        place.put("a.json", records("r", 60));
        let keys = "hold_after_refusals = 7\nbatch.max_events = 10";
        let ferry =
            place.start_with("", &[output(&collector, keys)], |app| app.retry_holds_every(QUICK)).await;
        let route = &ferry.app.routes[0];
        eventually("it holds", || route.status.snapshot().phase == Phase::Holding).await;
        let said = route.status.snapshot().reason.unwrap();
        assert!(said.contains("in a row") && said.contains("hold_after_refusals"), "{said}");
        let seen = collector.count_requests();
        eventually("it is tried again", || collector.count_requests() > seen + 3).await;
        assert!(route.metrics.dead_letters() <= 7, "{protocol:?}: {}", route.metrics.dead_letters());
        // The setting is put right.
        collector.set_poison("no event has this");
        let letters = || usize::try_from(route.metrics.dead_letters()).unwrap();
        eventually("the rest follows", || collector.ids().len() + letters() == 60).await;
        // A refusal that was on its way when another event was taken is believed: at most one of each batch.
        assert!(letters() <= 7 + 6, "{protocol:?}: {}", letters());
        ferry.rests().await;
        assert_eq!(route.status.snapshot().phase, Phase::Running);
        ferry.stop().await;
        assert_eq!(collector.ids().len() + place.letters().len(), 60, "{protocol:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_events_in_a_row_are_told_from_a_wrong_setting_by_the_next_good_one() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Hec).await);
    collector.set_poison("bad");
    place.put("a.json", records("bad", 20) + &records("good", 1) + &records("bad1", 5));
    let keys = "hold_after_refusals = 15";
    let ferry = place.start_with("", &[output(&collector, keys)], |app| app.retry_holds_every(QUICK)).await;
    // Fifteen are dead letters, then it waits for a human: here, for a good event from elsewhere.
    eventually("it holds", || ferry.route("splunk").status.snapshot().phase == Phase::Holding).await;
    place.put("b.json", records("other", 3));
    has(&collector, 3).await;
    eventually("the rest follows", || ferry.route("splunk").metrics.dead_letters() == 25).await;
    has(&collector, 4).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!((collector.ids().len(), place.letters().len()), (4, 25));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_met_an_ambiguous_end_is_sent_again_byte_for_byte() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Sumo).await);
    for _ in 0..2 {
        collector.push(Step::hang_up().keeping());
    }
    place.put("a.json", records("r", 50));
    let ferry = place.start("", &[output(&collector, "batch.max_events = 50")]).await;
    eventually("all is delivered", || ferry.route("sumo").metrics.events_delivered.get() == 50).await;
    // More comes meanwhile: it goes in a request of its own.
    place.put("b.json", records("s", 5));
    eventually("the rest is delivered", || ferry.route("sumo").metrics.events_delivered.get() == 55).await;
    assert_eq!(ferry.route("sumo").metrics.ambiguous_resends.get(), 100);
    ferry.stop().await;
    let requests = collector.requests();
    assert_eq!(requests.len(), 4);
    for again in &requests[1..3] {
        assert_eq!((&again.body, again.sent.as_slice()), (&requests[0].body, requests[0].sent.as_slice()));
    }
}
