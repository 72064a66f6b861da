//! A collector that is far away or slow: what waits for it takes little memory, and is all there when it is needed.

use std::collections::BTreeSet;

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Place, eventually, has, output, record};

/// A line of about 1 KB; one of a hundred is poisonous.
fn line(number: usize) -> String {
    let id = if number % 100 == 7 { format!("poisonous-{number}") } else { format!("r{number}") };
    let agent = format!("python-requests/2.{number} ").repeat(40);
    record(&id).replace("\"version\"", &format!("\"userAgent\":\"{agent}\",\"version\""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_memory_waits_for_a_slow_collector_and_a_refused_record_comes_back_as_it_was() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Hec).await);
    collector.set_down(Some(503));
    collector.set_poison("poisonous");
    let lines: Vec<String> = (0..4000).map(line).collect();
    place.put("a.json", lines.join("\n") + "\n");
    let keys = "in_flight = 64\nbatch.max_bytes = '64KiB'";
    let ferry = place.start("", &[output(&collector, keys)]).await;
    let metrics = &ferry.route("splunk").metrics;
    eventually("twice the memory is under way", || metrics.bytes_read.get() > 2 << 20).await;
    assert!(metrics.bytes_uncommitted.get() <= 1 << 20);
    collector.set_down(None);
    has(&collector, 3960).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!(collector.ids().len(), 3960);
    let letters: BTreeSet<Vec<u8>> =
        place.letters().iter().map(|letter| letter.letter.record.to_vec()).collect();
    let refused = lines.into_iter().filter(|line| line.contains("poisonous")).map(String::into_bytes);
    assert_eq!(letters, refused.collect());
}
