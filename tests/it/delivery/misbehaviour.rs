//! Collectors that fail, refuse, lie and fall silent.

use std::collections::HashMap;
use std::time::Duration;

use auditferry::app::App;
use auditferry::dead_letter::file::KeptLetter;
use auditferry::pipeline::PipelineError;
use auditferry::status::Phase;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::collector::{Collector, Item, Protocol, Step};
use crate::support::ferry::{
    Collectors, Ferry, Place, content, distinct, eventually, has, metric, offered, output, record,
    request_ids,
};

fn records(range: std::ops::Range<usize>) -> String {
    range.map(|number| record(&format!("r{number}")) + "\n").collect()
}

fn phase(ferry: &Ferry, output: &str) -> Phase {
    ferry.route(output).status.snapshot().phase
}

/// The answer of a protocol that takes everything.
fn success(protocol: Protocol) -> String {
    match protocol {
        Protocol::Hec => json!({"text": "Success", "code": 0}).to_string(),
        Protocol::Bulk => json!({"errors": false, "items": []}).to_string(),
        _ => "ok".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_down_holds_up_no_other() {
    let (place, collectors) = (Place::new(), Collectors::start().await);
    collectors.hec.set_down(Some(503));
    let ferry = place.start("", &collectors.outputs("")).await;
    place.put("a.json", records(0..50));
    has(&collectors.sumo, 50).await;
    has(&collectors.bulk, 50).await;
    eventually("the failure is shown", || phase(&ferry, "splunk") == Phase::Retrying).await;
    // What comes while one collector is down reaches the others all the same.
    let down_until = Instant::now() + Duration::from_secs(2);
    let mut written = 50;
    while Instant::now() < down_until {
        place.put("a.json", records(0..written + 10));
        written += 10;
        has(&collectors.sumo, written).await;
        has(&collectors.bulk, written).await;
    }
    let waiting = "auditferry_oldest_unacknowledged_seconds{input=\"audit\",output=\"splunk\"}";
    eventually("the waiting is shown", || metric(&ferry.app, waiting) > 0.0).await;
    assert_eq!((phase(&ferry, "sumo"), phase(&ferry, "elastic")), (Phase::Running, Phase::Running));
    assert_eq!(collectors.hec.ids().len(), 0);
    collectors.hec.set_down(None);
    has(&collectors.hec, written).await;
    ferry.rests().await;
    assert_eq!(phase(&ferry, "splunk"), Phase::Running);
    eventually("nothing waits", || metric(&ferry.app, waiting) == 0.0).await;
    ferry.stop().await;
    for collector in collectors.all() {
        assert_eq!((collector.ids().len(), distinct(collector)), (written, written));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_collector_does_nothing_is_missing_and_only_the_ambiguous_comes_twice() {
    let (place, collectors) = (Place::new(), Collectors::start().await);
    for collector in collectors.all() {
        let ok = success(collector.protocol());
        for fault in [
            Step::answer(429, "slow down").header("retry-after", "1"),
            Step::answer(503, "busy"),
            Step::hang_up(),
            Step::garbage(),
            // From here on the events have arrived, and auditferry cannot know.
            Step::hang_up().keeping(),
            Step::garbage().keeping(),
            Step::half_answer(ok.clone()).keeping(),
            Step::answer(200, ok).delayed(Duration::from_secs(2)).keeping(),
        ] {
            collector.push(fault);
            collector.push(Step::usual());
        }
    }
    place.put("a.json", records(0..100));
    let keys = "batch.max_events = 10\nin_flight = 1\ntimeout = '500ms'";
    let ferry = place.start("", &collectors.outputs(keys)).await;
    collectors.have(100).await;
    ferry.rests().await;
    let duplicates = ferry.route("elastic").metrics.events_duplicate.get();
    let resends: Vec<u64> =
        ferry.app.routes.iter().map(|route| route.metrics.ambiguous_resends.get()).collect();
    ferry.stop().await;
    assert!(place.letters().is_empty());
    assert_eq!((collectors.bulk.ids().len(), duplicates), (100, 40), "documents are told apart by their id");
    assert_eq!(resends, [60, 60, 60], "each of the six ambiguous batches");
    for collector in [&collectors.hec, &collectors.sumo] {
        let mut times: HashMap<String, usize> = HashMap::new();
        for id in collector.ids() {
            *times.entry(id).or_default() += 1;
        }
        let twice = times.values().filter(|times| **times == 2).count();
        assert_eq!((times.len(), twice, collector.ids().len()), (100, 40, 140), "{:?}", collector.protocol());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_bulk_that_is_none_is_not_taken_for_one() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Bulk).await);
    collector.push(Step::answer(200, "<html>Welcome</html>"));
    collector.push(Step::answer(200, json!({"errors": true, "items": []}).to_string()));
    place.put("a.json", records(0..10));
    let ferry = place.start("", &[output(&collector, "")]).await;
    has(&collector, 10).await;
    ferry.rests().await;
    ferry.stop().await;
    assert!(place.letters().is_empty());
}

/// Fails unless a dead letter names the place its record lies at.
fn lies_where_it_says(place: &Place, kept: &KeptLetter) {
    let object = content(&place.bucket().join(&kept.letter.origin.object));
    let offset = usize::try_from(kept.letter.origin.offset).unwrap();
    assert!(object[offset..].starts_with(&kept.letter.record), "offset {offset}");
    let before = object[..offset].iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(kept.letter.origin.line, before as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_documents_of_bulk_are_settled_each_for_itself() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Bulk).await);
    collector.push_items([201, 429, 400, 409, 201, 429].map(Item::of).to_vec());
    place.put("a.json", records(0..30));
    let ferry = place.start("", &[output(&collector, "")]).await;
    has(&collector, 29).await;
    ferry.rests().await;
    let metrics = ferry.route("elastic").metrics.clone();
    assert_eq!(
        (metrics.events_delivered.get(), metrics.events_duplicate.get(), metrics.dead_letters()),
        (28, 1, 1)
    );
    ferry.stop().await;
    assert_eq!(collector.ids().len(), 29);
    let letters = place.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].letter.reason, "rejected");
    assert!(letters[0].letter.detail.contains("document_parsing_exception"), "{}", letters[0].letter.detail);
    assert_eq!(letters[0].letter.record, record("r2"));
    lies_where_it_says(&place, &letters[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_event_is_the_only_one_that_does_not_arrive() {
    for (protocol, said) in [
        (Protocol::Hec, "Invalid data format (HEC code 6)"),
        (Protocol::Bulk, "document_parsing_exception"),
        (Protocol::Any, "400"),
    ] {
        let (place, collector) = (Place::new(), Collector::start(protocol).await);
        collector.set_poison("r7\"");
        place.put("a.json", records(0..20));
        let ferry = place.start("", &[output(&collector, "")]).await;
        has(&collector, 19).await;
        ferry.rests().await;
        ferry.stop().await;
        assert_eq!(collector.ids().len(), 19, "{protocol:?}");
        let letters = place.letters();
        assert_eq!(letters.len(), 1, "{protocol:?}");
        assert_eq!(
            (letters[0].letter.reason.as_str(), &*letters[0].letter.record),
            ("rejected", record("r7").as_bytes())
        );
        assert!(letters[0].letter.detail.contains(said), "{}", letters[0].letter.detail);
        lies_where_it_says(&place, &letters[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_poisonous_event_of_ten_thousand_is_the_only_one_missing_wherever_it_is() {
    for poison in [0, 4_999, 5_000, 9_999] {
        let (place, collector) = (Place::new(), Collector::start(Protocol::Hec).await);
        collector.set_poison(&format!("\"r{poison}\""));
        place.put("a.json", records(0..10_000));
        let ferry = place.start("", &[output(&collector, "")]).await;
        has(&collector, 9_999).await;
        ferry.rests().await;
        ferry.stop().await;
        assert_eq!((collector.ids().len(), distinct(&collector)), (9_999, 9_999), "{poison}");
        let letters = place.letters();
        assert_eq!(letters.len(), 1, "{poison}");
        assert_eq!(&*letters[0].letter.record, record(&format!("r{poison}")).as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_poisonous_events_do_not_slow_the_others_down() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Hec).await);
    collector.set_poison("poison");
    let mixed: String =
        (0..40).map(|n| record(&format!("{n}")) + "\n" + &record(&format!("poison{n}")) + "\n").collect();
    place.put("a.json", mixed);
    let ferry = place.start("", &[output(&collector, "")]).await;
    let started = Instant::now();
    has(&collector, 40).await;
    ferry.rests().await;
    // With a back-off of at least half a second after each it were 20 s.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    ferry.stop().await;
    assert_eq!((collector.ids().len(), place.letters().len()), (40, 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_acknowledgement_holds_up_no_other_request() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Hec).await);
    collector.set_acknowledging(false);
    for _ in 0..4 {
        collector.push(Step::answer(503, "busy"));
    }
    place.put("a.json", records(0..40));
    let ferry =
        place.start("", &[output(&collector, "ack = true\nin_flight = 4\nbatch.max_events = 10")]).await;
    has(&collector, 40).await;
    assert_eq!(ferry.route("splunk").metrics.events_delivered.get(), 0, "nothing is safe yet");
    collector.set_acknowledging(true);
    eventually("all is safe", || ferry.route("splunk").metrics.events_delivered.get() == 40).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!(collector.ids().len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_to_one_collector_share_its_pace() {
    let (place, hec) = (Place::new(), Collector::start(Protocol::Hec).await);
    hec.set_down(Some(503));
    place.put("a.json", records(0..30));
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(other.path().join(Place::key("")).parent().unwrap()).unwrap();
    std::fs::write(other.path().join(Place::key("b.json")), records(30..60)).unwrap();
    let second = format!("[inputs.second]\ntype = 'bucket'\nurl = '{}'\n", other.path().display());
    let keys = "batch.max_events = 5\nin_flight = 8";
    let ferry = place.start("", &[second, output(&hec, keys)]).await;
    let waits = |input: &str| {
        let route = ferry.app.routes.iter().find(|route| route.input_name == input).unwrap();
        route.status.snapshot().phase == Phase::Retrying
    };
    eventually("both wait", || waits("audit") && waits("second")).await;
    // Twelve batches are ready, and no two of them try at the same time: as many tries as waits, not twelve times that.
    let before = hec.count_requests();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tries = hec.count_requests() - before;
    assert!(tries <= 4, "{tries} tries within 2 s");
    hec.set_down(None);
    has(&hec, 60).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!(hec.ids().len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_before_a_single_run_gave_up_is_not_sent_again() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Hec).await);
    for object in 0..8 {
        place.put(&format!("{object}.json"), records(object..object + 1));
        collector.push(if object < 7 { Step::usual() } else { Step::answer(401, "") });
    }
    let outputs = [output(&collector, "batch.max_events = 1\nin_flight = 1")];
    let mut app = App::build(&place.config("", &outputs), true).unwrap();
    let mut tasks = app.start(&CancellationToken::new());
    let ended = tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(PipelineError::Collector { .. })), "{ended:?}");
    drop((app, tasks));
    assert_eq!(collector.ids().len(), 7);
    let ferry = place.start("", &outputs).await;
    has(&collector, 8).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!((collector.ids().len(), distinct(&collector)), (8, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_when_a_single_run_gives_up_is_waited_for() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Hec).await);
    place.put("a.json", records(0..1));
    place.put("b.json", records(1..2));
    // Both are under way before either is answered.
    collector.push(Step::answer(401, "").delayed(Duration::from_millis(300)));
    collector.push(Step::answer(200, success(Protocol::Hec)).delayed(Duration::from_millis(1000)).keeping());
    let outputs = [output(&collector, "batch.max_events = 1\nin_flight = 2")];
    let mut app = App::build(&place.config("", &outputs), true).unwrap();
    let mut tasks = app.start(&CancellationToken::new());
    let ended = tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(PipelineError::Collector { .. })), "{ended:?}");
    drop((app, tasks));
    let ferry = place.start("", &outputs).await;
    has(&collector, 2).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!((offered(&collector), distinct(&collector)), (3, 2), "only what was refused is offered again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_split_and_the_size_is_remembered() {
    const MOST: usize = 10_000;
    let (place, collectors) = (Place::new(), Collectors::start().await);
    for collector in collectors.all() {
        collector.set_most_bytes(MOST);
    }
    let ferry = place.start("", &collectors.outputs("batch.max_bytes = '100KB'")).await;
    place.put("a.json", records(0..300));
    collectors.have(300).await;
    ferry.rests().await;
    let refused = |collector: &Collector| {
        collector.requests().iter().filter(|request| request.body.len() > MOST).count()
    };
    let before = collectors.all().map(refused);
    // Each of the requests under way at once comes down by itself; what waits behind them is split unasked.
    assert!(before.iter().all(|refused| (1..=16).contains(refused)), "{before:?}");
    place.put("a.json", records(0..600));
    collectors.have(600).await;
    ferry.rests().await;
    ferry.stop().await;
    assert_eq!(collectors.all().map(refused), before, "the size is known by now");
    for collector in collectors.all() {
        assert_eq!((collector.ids().len(), request_ids(collector).len()), (600, 600));
    }
    assert!(place.letters().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_event_that_is_too_large_becomes_a_dead_letter() {
    let (place, collector) = (Place::new(), Collector::start(Protocol::Sumo).await);
    collector.set_most_bytes(10_000);
    place.put("a.json", records(0..5) + &record(&"x".repeat(20_000)) + "\n" + &records(5..10));
    let ferry = place.start("", &[output(&collector, "")]).await;
    has(&collector, 10).await;
    ferry.rests().await;
    ferry.stop().await;
    let letters = place.letters();
    assert_eq!(letters.iter().map(|kept| kept.letter.reason.as_str()).collect::<Vec<_>>(), ["too_large"]);
    lies_where_it_says(&place, &letters[0]);
    assert_eq!(collector.ids().len(), 10);
}
