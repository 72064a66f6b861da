//! Secrets that are wrong, revoked and rotated: nothing is lost, nothing becomes a dead letter, nothing is restarted.

use std::path::Path;
use std::time::Duration;

use auditferry::status::Phase;

use crate::support::collector::{Collector, Protocol};
use crate::support::ferry::{Ferry, Place, distinct, eventually, has, metric, output, record};

const QUICK: Duration = Duration::from_millis(100);

fn records(range: std::ops::Range<usize>) -> String {
    range.map(|number| record(&format!("r{number}")) + "\n").collect()
}

fn phase(ferry: &Ferry, output: &str) -> Phase {
    ferry.route(output).status.snapshot().phase
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_holds_everything_until_the_right_one_is_there() {
    let place = Place::new();
    let (hec, bulk) = (Collector::start(Protocol::Hec).await, Collector::start(Protocol::Bulk).await);
    hec.want_authorization("Splunk the right one");
    bulk.want_authorization("ApiKey the right one");
    let token = place.beside("token");
    std::fs::write(&token, "wrong").unwrap();
    let outputs = [
        output(&hec, &format!("token = {{ file = '{}' }}", token.display())),
        output(&bulk, &format!("api_key = {{ file = '{}' }}", token.display())),
    ];
    place.put("a.json", records(0..30));
    let ferry = place.start_with("", &outputs, |app| app.retry_holds_every(QUICK)).await;
    for name in ["splunk", "elastic"] {
        eventually("the hold is shown", || phase(&ferry, name) == Phase::Holding).await;
        let hold = format!("auditferry_hold{{input=\"audit\",output=\"{name}\",reason=\"credentials\"}}");
        assert!((metric(&ferry.app, &hold) - 1.0).abs() < f64::EPSILON);
        assert_eq!(ferry.route(name).metrics.dead_letters(), 0);
    }
    std::fs::write(&token, "the right one").unwrap();
    for collector in [&hec, &bulk] {
        has(collector, 30).await;
    }
    ferry.rests().await;
    for name in ["splunk", "elastic"] {
        assert_eq!(phase(&ferry, name), Phase::Running);
        let hold = format!("auditferry_hold{{input=\"audit\",output=\"{name}\",reason=\"credentials\"}}");
        assert!(metric(&ferry.app, &hold) < 0.5);
    }
    ferry.stop().await;
    assert_eq!((hec.ids().len(), bulk.ids().len()), (30, 30));
    assert!(place.letters().is_empty());
}

/// Collectors that know one secret: the header that shows it, and what stands before it there.
const COLLECTORS: [(Protocol, &str, &str); 7] = [
    (Protocol::Hec, "authorization", "Splunk "),
    (Protocol::Sumo, "x-sumo-token", ""),
    (Protocol::Bulk, "authorization", "ApiKey "),
    (Protocol::Any, "authorization", "Bearer "),
    (Protocol::Datadog, "dd-api-key", ""),
    (Protocol::Otlp, "api-key", ""),
    (Protocol::Loki, "authorization", "Bearer "),
];

/// An output whose secret is the content of a file.
fn with_secret_in(file: &Path, collector: &Collector) -> String {
    let secret = format!("{{ file = '{}' }}", file.display());
    let keys = match collector.protocol() {
        Protocol::Sumo => format!("token = {secret}"),
        Protocol::Any => format!("headers.authorization = {secret}"),
        _ => String::new(),
    };
    output(collector, &keys).replace("= 'hunter2'", &format!("= {secret}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_revoked_and_then_rotated_costs_nothing_but_time() {
    for (protocol, header, before) in COLLECTORS {
        let (place, collector) = (Place::new(), Collector::start(protocol).await);
        let file = place.beside("token");
        // Only `http` has the scheme in its secret.
        let write = |text: &str| {
            let before = if protocol == Protocol::Any { before } else { "" };
            std::fs::write(&file, format!("{before}{text}")).unwrap();
        };
        let want = |text: &str| collector.want_header(header, &format!("{before}{text}"));
        want("first");
        write("first");
        place.put("a.json", records(0..30));
        let outputs = [with_secret_in(&file, &collector)];
        let ferry = place.start_with("", &outputs, |app| app.retry_holds_every(QUICK)).await;
        let name = ferry.app.routes[0].output_name.clone();
        has(&collector, 30).await;
        want("second");
        place.put("b.json", records(30..60));
        eventually("the hold is shown", || phase(&ferry, &name) == Phase::Holding).await;
        let tried = collector.count_requests();
        eventually("it is tried again", || collector.count_requests() > tried + 2).await;
        write("second");
        has(&collector, 60).await;
        ferry.rests().await;
        assert_eq!(phase(&ferry, &name), Phase::Running, "{protocol:?}");
        ferry.stop().await;
        assert_eq!((collector.ids().len(), distinct(&collector)), (60, 60), "{protocol:?}");
        assert!(place.letters().is_empty(), "{protocol:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_rotated_here_before_the_collector_knows_it_holds_nothing_up() {
    for (protocol, header, before) in COLLECTORS {
        let (place, collector) = (Place::new(), Collector::start(protocol).await);
        let file = place.beside("token");
        let shown = if protocol == Protocol::Any { before } else { "" };
        collector.want_header(header, &format!("{before}first"));
        std::fs::write(&file, format!("{shown}first")).unwrap();
        place.put("a.json", records(0..10));
        // A hold would last longer than the test is patient.
        let ferry = place.start("", &[with_secret_in(&file, &collector)]).await;
        has(&collector, 10).await;
        std::fs::write(&file, format!("{shown}second")).unwrap();
        place.put("b.json", records(10..20));
        has(&collector, 20).await;
        collector.want_header(header, &format!("{before}second"));
        place.put("c.json", records(20..30));
        has(&collector, 30).await;
        ferry.rests().await;
        let name = &ferry.app.routes[0].output_name;
        let held = format!("auditferry_requests_total{{input=\"audit\",output=\"{name}\",verdict=\"hold\"}}");
        assert!(metric(&ferry.app, &held) < 0.5, "{protocol:?}");
        ferry.stop().await;
        assert_eq!(collector.ids().len(), 30, "{protocol:?}");
    }
}
