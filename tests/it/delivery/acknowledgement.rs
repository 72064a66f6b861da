//! Indexers that promise to tell later, behind a balancer that does not know which one promised.

use std::collections::HashSet;

use crate::support::balancer::Balancer;
use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Place, eventually, has, metric, record};

fn records(range: std::ops::Range<usize>) -> String {
    range.map(|number| record(&format!("r{number}")) + "\n").collect()
}

/// An output that waits for acknowledgements, at an address.
fn acknowledged(url: &str, keys: &str) -> String {
    format!(
        "[outputs.splunk]\ntype = 'splunk_hec'\nurl = '{url}'\ntoken = 'hunter2'\nproxy = 'none'\nack = true\n\
         batch.max_age = '50ms'\n{keys}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_indexers_behind_a_balancer_lose_nothing_when_one_dies_and_only_what_it_owed_comes_again() {
    let place = Place::new();
    let (dying, living) = (Collector::start(Protocol::Hec).await, Collector::start(Protocol::Hec).await);
    for indexer in [&dying, &living] {
        indexer.set_acknowledging(true);
    }
    let balancer = Balancer::start(&[dying.url(), living.url()]).await;
    place.put("a.json", records(0..100));
    // Long enough that nothing is sent again, and is under way to the one that dies, before it is dead: a machine that is
    // busy stops for some seconds.
    let keys = "ack_timeout = '20s'\nbatch.max_events = 5\nin_flight = 4";
    let ferry = place.start("", &[acknowledged(balancer.url(), keys)]).await;
    let metrics = ferry.route("splunk").metrics.clone();
    eventually("all is safe", || metrics.events_delivered.get() == 100).await;
    // From here on one of them takes events and makes none of them safe.
    dying.set_acknowledging(false);
    place.put("b.json", records(100..200));
    eventually("all is sent", || dying.ids().len() + living.ids().len() >= 200).await;
    let (safe, arrived) = (dying.safe_ids(), dying.ids().len());
    assert!(!safe.is_empty() && arrived > safe.len(), "{} of {arrived} are safe", safe.len());
    drop(dying);
    eventually("all is safe again", || metrics.events_delivered.get() == 200).await;
    ferry.rests().await;
    let resent = usize::try_from(metrics.ambiguous_resends.get()).unwrap();
    let waiting = metric(&ferry.app, "auditferry_acks_pending{input=\"audit\",output=\"splunk\"}");
    ferry.stop().await;
    assert!(place.letters().is_empty() && waiting == 0.0);
    // What the dead one held and had not made safe is gone with it: all of that has to be with the other.
    let kept: HashSet<String> = safe.into_iter().chain(living.ids()).collect();
    assert_eq!(kept.len(), 200);
    assert_eq!(arrived + living.ids().len(), 200 + resent, "each repeat is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_acknowledgement_keeps_no_place_in_flight() {
    let (place, indexer) = (Place::new(), Collector::start(Protocol::Hec).await);
    indexer.set_acknowledging(false);
    place.put("a.json", records(0..100));
    let keys = "batch.max_events = 5\nin_flight = 1";
    let ferry = place.start("", &[acknowledged(indexer.url(), keys)]).await;
    has(&indexer, 100).await;
    let name = "auditferry_acks_pending{input=\"audit\",output=\"splunk\"}";
    eventually("all twenty wait", || metric(&ferry.app, name) > 19.5).await;
    let metrics = ferry.route("splunk").metrics.clone();
    assert_eq!((metrics.events_delivered.get(), metrics.commits.get()), (0, 0), "nothing is safe yet");
    indexer.set_acknowledging(true);
    eventually("all is safe", || metrics.events_delivered.get() == 100).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!(indexer.ids().len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_acknowledged_in_time_is_sent_again_byte_for_byte_and_counted() {
    let (place, indexer) = (Place::new(), Collector::start(Protocol::Hec).await);
    indexer.set_acknowledging(false);
    place.put("a.json", records(0..10));
    let ferry = place.start("", &[acknowledged(indexer.url(), "ack_timeout = '1s'")]).await;
    let metrics = ferry.route("splunk").metrics.clone();
    eventually("it is sent again", || metrics.ambiguous_resends.get() == 10).await;
    indexer.set_acknowledging(true);
    eventually("it is safe", || metrics.events_delivered.get() == 10).await;
    ferry.rests().await;
    ferry.stop().await;
    let requests = indexer.requests();
    let bodies: HashSet<&str> = requests
        .iter()
        .filter(|request| request.path.ends_with("/event"))
        .map(|request| request.body.as_str())
        .collect();
    assert_eq!(bodies.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indexer_that_is_killed_and_comes_back_has_each_of_twenty_thousand_events_once() {
    let (place, mut indexer) = (Place::new(), Collector::start(Protocol::Hec).await);
    indexer.set_acknowledging(true);
    let all = 20_000;
    let keys = "ack_timeout = '5s'\nbatch.max_events = 100\nin_flight = 4";
    place.put("a.json", records(0..all));
    let ferry = place.start("", &[acknowledged(indexer.url(), keys)]).await;
    let metrics = ferry.route("splunk").metrics.clone();
    eventually("some are safe", || metrics.events_delivered.get() >= 2_000).await;
    // What it had not made safe, it had in memory only; its numbers begin at 0 again.
    let lost = indexer.crash().await;
    let safe = indexer.ids().len();
    eventually("it is missed", || metrics.retries.get() > 0).await;
    indexer.rise().await;
    eventually("all is safe", || metrics.events_delivered.get() == all as u64).await;
    ferry.rests().await;
    ferry.stop().await;
    assert!(safe >= 2_000 && safe < all, "{safe} were safe when it was killed");
    let kept = indexer.ids();
    let distinct: HashSet<&String> = kept.iter().collect();
    assert_eq!(distinct.len(), all, "nothing is lost");
    assert!(place.letters().is_empty());
    // What came more than once was not acknowledged, and is counted, as is what died on its way.
    let (repeated, resent) =
        (lost + kept.len() - all, usize::try_from(metrics.ambiguous_resends.get()).unwrap());
    assert!(lost > 0 && repeated <= resent, "{lost} were lost, {repeated} came again, {resent} were counted");
    // No more than may wait for an acknowledgement and be under way.
    assert!(resent <= all - safe, "{resent} were sent again of {} that were not safe", all - safe);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_acknowledged_is_sent_again_by_the_only_place_in_flight_though_nothing_new_comes() {
    let (place, indexer) = (Place::new(), Collector::start(Protocol::Hec).await);
    indexer.set_acknowledging(false);
    place.put("a.json", records(0..10));
    let ferry = place.start("", &[acknowledged(indexer.url(), "ack_timeout = '1s'\nin_flight = 1")]).await;
    let metrics = ferry.route("splunk").metrics.clone();
    eventually("it is sent again", || indexer.ids().len() >= 20).await;
    indexer.set_acknowledging(true);
    eventually("it is safe", || metrics.events_delivered.get() == 10).await;
    ferry.rests().await;
    ferry.stop().await;
}
