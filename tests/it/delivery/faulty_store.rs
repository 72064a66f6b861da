//! A store that fails one request of two, in every way there is, while its objects grow: the client of the real thing is
//! part of what is tried, which no simulation has.

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Place, eventually, has, has_exactly, output, record};
use crate::support::store::{Fault, Store};

/// Lines long enough for seams and for several pieces of a body.
fn line(object: usize, number: usize) -> String {
    let mut line = record(&format!("o{object}-{number}"));
    line.pop();
    line + &format!(r#","requestParams":{{"pad":"{}"}}}}"#, "x".repeat(3000)) + "\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_in_every_way_loses_nothing_and_makes_nothing_come_twice() {
    let (mut place, store) = (Place::new(), Store::start().await);
    let (hec, bulk) = (Collector::start(Protocol::Hec).await, Collector::start(Protocol::Bulk).await);
    place.url = Some("s3://audit/logs".to_owned());
    let input = format!(
        "verify_whole_below = '1KiB'\ns3 = {{ endpoint = '{}', allow_http = true, anonymous = true }}\n",
        store.url()
    );
    let put = |object: usize, lines: &[String]| {
        store.put(&format!("logs/{}", Place::key(&format!("{object}.json"))), lines.concat());
    };
    let mut objects: Vec<Vec<String>> = vec![Vec::new(); 3];
    let mut total = 0;
    store.fail_one_of(2);
    let ferry = place.start(&input, &[output(&hec, ""), output(&bulk, "")]).await;
    let mut round = 0;
    while round < 6 || store.kinds_of_faults() < Fault::KINDS {
        for (object, lines) in objects.iter_mut().enumerate() {
            let new = (lines.len()..lines.len() + 10).map(|number| line(object, number));
            // At the end, or, in one of three rounds, before it.
            let at = if round % 3 == 2 { lines.len() / 2 } else { lines.len() };
            lines.splice(at..at, new.collect::<Vec<_>>());
            put(object, lines);
            total += 10;
        }
        round += 1;
        assert!(round < 40, "{} kinds of faults", store.kinds_of_faults());
        // What failed is soon tried again, and fails again.
        eventually("most has come", || hec.ids().len() + 15 >= total).await;
    }
    store.fail_one_of(0);
    for collector in [&hec, &bulk] {
        has(collector, total).await;
    }
    ferry.rests().await;
    ferry.stop().await;
    for collector in [&hec, &bulk] {
        has_exactly(collector, total);
    }
}
