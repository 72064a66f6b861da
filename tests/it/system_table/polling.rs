//! What is polled when, and that nothing is lost or read twice over it.

use std::collections::HashSet;
use std::time::Duration;

use auditferry::input::Read;
use auditferry::time::Millis;
use fastrand::Rng;
use serde_json::json;

use crate::support::table::{Frozen, Shelf, noon, now, pass};
use crate::support::warehouse::{Rights, TableRow, WAREHOUSE, Workspace};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A number made of another, without an order.
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 11
}

/// Rows spread over a time from noon on: most visible after two minutes, one in fifty up to an hour late, one in a
/// thousand hours late.
fn rows(count: u64, over: Duration) -> Vec<TableRow> {
    let row = |number: u64| {
        let luck = scattered(number);
        let time = noon().plus(over.mul_f64(number as f64 / count as f64));
        let late = match luck % 1000 {
            0 => HOUR * u32::try_from(2 + luck / 1000 % 40).unwrap(),
            1..20 => MINUTE.mul_f64((luck / 1000 % 6000) as f64 / 100.0),
            _ => Duration::from_secs(luck / 1000 % 120),
        };
        TableRow::new(time, time.plus(late), number)
    };
    (0..count).map(row).collect()
}

#[tokio::test]
async fn a_hundred_thousand_rows_that_arrive_late_are_read_once_each_over_crashes() {
    let workspace = Workspace::start(now).await;
    let _frozen = Frozen::start();
    let rows = rows(100_000, 48 * HOUR);
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    workspace.insert(rows);
    let mut shelf = Shelf::new(&workspace);
    shelf.set("poll_interval", json!("20m"));
    let mut input = shelf.open();
    let mut polls = 0;
    // Until the last hour has been counted three days after its end.
    while now() < noon().plus(150 * HOUR) {
        if polls % 40 == 13 {
            // A crash after a poll of which only the first chunk was committed.
            if let Ok(Read::Chunk(chunk)) = input.read().await {
                shelf.commit(&*input, [chunk]).await;
            }
            shelf.read_uncommitted(&*input, 3).await;
            input = shelf.open();
        }
        shelf.poll(&*input).await.unwrap();
        pass(20 * MINUTE).await;
        polls += 1;
    }
    shelf.has_each_once(ids);
    workspace.was_spoken_to_properly();
    assert!(shelf.counts.records_skipped > 100_000, "the overlap was read again");
    let (bytes, positions) = shelf.kept().await;
    assert!(positions.iter().filter(|position| *position == "closed").count() >= 48);
    assert_eq!(bytes, 0, "ids of closed hours are gone");
}

#[tokio::test]
async fn the_overlap_is_read_again_and_older_hours_are_only_counted() {
    let workspace = Workspace::start(now).await;
    let _frozen = Frozen::start();
    let mut shelf = Shelf::new(&workspace);
    let input = shelf.open();
    let statements = |workspace: &Workspace| workspace.asked("POST /api/2.0/sql/statements");
    workspace.insert((0..3000).map(|number| {
        let time = noon().plus(10 * HOUR).plus(Duration::from_secs(number));
        TableRow::new(time, time, number)
    }));
    shelf.poll(&*input).await.unwrap();
    pass(16 * HOUR).await;
    shelf.poll(&*input).await.unwrap();
    assert_eq!(shelf.ids.len(), 3000);
    let (before, fetched) = (statements(&workspace), shelf.counts.bytes_fetched);
    // Nothing new: one statement for the overlap; an hour later one for the count besides.
    pass(5 * MINUTE).await;
    shelf.poll(&*input).await.unwrap();
    assert_eq!(statements(&workspace) - before, 1);
    pass(HOUR).await;
    shelf.poll(&*input).await.unwrap();
    assert!(statements(&workspace) - before <= 4);
    assert_eq!(shelf.counts.bytes_fetched, fetched, "the busy hour was not read again");
    // A row for it arrives: its hour is read again, and gives that row.
    let late = noon().plus(10 * HOUR + MINUTE);
    workspace.insert([TableRow::new(late, now(), 9999)]);
    pass(HOUR).await;
    shelf.poll(&*input).await.unwrap();
    assert_eq!(shelf.ids.len(), 3001);
    assert_eq!(shelf.records.last().unwrap()["request_id"], "ServiceMain-9999");
    workspace.was_spoken_to_properly();
}

#[tokio::test]
async fn the_first_start_begins_with_its_hour_and_an_earlier_start_time_fills_what_lies_before() {
    let workspace = Workspace::start(now).await;
    let _frozen = Frozen::start();
    let row = |hours_before: u32, number| {
        let time = noon().minus(HOUR * hours_before).plus(MINUTE);
        TableRow::new(time, time, number)
    };
    workspace.insert([row(30 * 24, 1), row(5 * 24, 2), row(3, 3), row(0, 4)]);
    let mut shelf = Shelf::new(&workspace);
    pass(10 * MINUTE).await;
    shelf.poll(&*shelf.open()).await.unwrap();
    let read = |shelf: &Shelf| -> Vec<String> {
        shelf
            .records
            .iter()
            .map(|record| record["request_id"].as_str().unwrap().replace("ServiceMain-", ""))
            .collect()
    };
    assert_eq!(read(&shelf), ["4"]);
    shelf.set("start_time", json!("2025-12-01"));
    let input = shelf.open();
    shelf.poll(&*input).await.unwrap();
    assert_eq!(read(&shelf), ["4", "1", "2", "3"]);
    pass(5 * MINUTE).await;
    shelf.poll(&*input).await.unwrap();
    shelf.poll(&*shelf.open()).await.unwrap();
    assert_eq!(shelf.ids.len(), 4);
    let (bytes, positions) = shelf.kept().await;
    assert_eq!(bytes, 2 * 16, "only the hours of the look-back keep ids");
    assert!(
        positions.len() > 35 * 24 && positions.iter().filter(|position| *position != "closed").count() < 80
    );
}

#[tokio::test]
async fn rows_younger_than_the_safety_margin_wait_and_once_ends_after_one_pass() {
    let workspace = Workspace::start(now).await;
    let _frozen = Frozen::start();
    let at = |seconds| noon().plus(Duration::from_secs(seconds));
    workspace.insert([(239, 1), (241, 2)].map(|(seconds, number)| TableRow::new(at(seconds), at(0), number)));
    let mut shelf = Shelf::new(&workspace);
    shelf.once = true;
    tokio::time::advance(Duration::from_secs(300)).await;
    shelf.poll(&*shelf.open()).await.unwrap();
    assert_eq!(shelf.records.len(), 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    shelf.poll(&*shelf.open()).await.unwrap();
    assert_eq!(shelf.records.len(), 2);
}

/// Rows of 30 hours that arrive up to 60 hours late, some of them the account's.
fn scenario(base: Millis, rng: &mut Rng) -> [Vec<TableRow>; 2] {
    let mut regions = [Vec::new(), Vec::new()];
    for number in 0..400 {
        let time = base.plus(Duration::from_millis(rng.u64(..30 * 3_600_000)));
        let account = rng.u8(..4) == 0;
        let home = rng.usize(..2);
        for (region, rows) in regions.iter_mut().enumerate() {
            // The account's arrive in both regions, each in its own time.
            let late = if rng.u8(..10) == 0 { 60 * 3_600_000 } else { 300_000 };
            let arrives = time.plus(Duration::from_millis(rng.u64(..late)));
            if account || region == home {
                rows.push(TableRow::padded(time, arrives, number, 3000, account));
            }
        }
    }
    regions
}

#[tokio::test]
async fn whatever_was_committed_when_it_crashed_every_event_of_two_regions_is_read_once() {
    let seed = std::env::var("TABLE_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut rng = Rng::with_seed(seed);
    for _ in 0..2 {
        let (home, away) = (Workspace::start(now).await, Workspace::start(now).await);
        let _frozen = Frozen::start();
        let base = now();
        let [first, second] = scenario(base, &mut rng);
        let ids: HashSet<String> = first.iter().chain(&second).map(|row| row.id.clone()).collect();
        home.insert(first);
        away.insert(second);
        let mut shelf = Shelf::new(&home);
        let regions = json!({ "away": { "url": away.url(), "warehouse_id": WAREHOUSE } });
        shelf.set("regions", regions).set("deduplicate", json!(true)).set("poll_interval", json!("60m"));
        shelf.memory = 64 << 10;
        let mut input = shelf.open();
        // The last row can be there after 90 hours, and is counted a look-back and a day after its hour.
        while now() < base.plus(132 * HOUR) {
            match rng.u8(..8) {
                0 => {
                    shelf.crash(input, rng.usize(..40), &mut rng).await;
                    input = shelf.open();
                }
                1 => home.break_links(1),
                2 => away.be_busy(&[(503, "1")]),
                3 => home.end_next("CLOSED"),
                _ => {}
            }
            while shelf.poll(&*input).await.is_err() {}
            pass(MINUTE * if now() < base.plus(92 * HOUR) { rng.u32(60..300) } else { 600 }).await;
        }
        while shelf.poll(&*input).await.is_err() {}
        let mut found = shelf.ids.clone();
        found.sort_unstable();
        let mut expected: Vec<String> = ids.into_iter().collect();
        expected.sort_unstable();
        assert!(found == expected, "TABLE_SEED={seed}: {} of {}", found.len(), expected.len());
        home.was_spoken_to_properly();
    }
}

/// A table of two regions: each its own workspace events, both the account's.
async fn two_regions() -> (Workspace, Workspace, Shelf) {
    let (home, away) = (Workspace::start(now).await, Workspace::start(now).await);
    let row = |number: u64, account| {
        let time = noon().plus(Duration::from_secs(number));
        TableRow::padded(time, time, number, 0, account)
    };
    home.insert((0..40).filter(|number| number % 2 == 0 || number % 5 == 0).map(|n| row(n, n % 5 == 0)));
    away.insert((0..40).filter(|number| number % 2 == 1 || number % 5 == 0).map(|n| row(n, n % 5 == 0)));
    let mut shelf = Shelf::new(&home);
    let region = json!({ "away": { "url": away.url(), "warehouse_id": WAREHOUSE } });
    shelf.set("regions", region);
    (home, away, shelf)
}

#[tokio::test]
async fn account_events_of_two_regions_are_counted_and_on_demand_dropped() {
    for deduplicate in [false, true] {
        let (home, away, mut shelf) = two_regions().await;
        let _frozen = Frozen::start();
        shelf.set("deduplicate", json!(deduplicate));
        pass(5 * MINUTE).await;
        shelf.poll(&*shelf.open()).await.unwrap();
        assert_eq!(shelf.counts.records_duplicate, 8);
        assert_eq!(shelf.ids.len(), if deduplicate { 40 } else { 48 });
        // Neither the next poll nor the next start reads them again.
        let input = shelf.open();
        pass(5 * MINUTE).await;
        shelf.poll(&*input).await.unwrap();
        shelf.poll(&*shelf.open()).await.unwrap();
        assert_eq!((shelf.counts.records_duplicate, shelf.ids.len()), (8, if deduplicate { 40 } else { 48 }));
        home.was_spoken_to_properly();
        away.was_spoken_to_properly();
    }
}

#[tokio::test]
async fn an_event_that_two_regions_have_is_not_lost_when_neither_was_committed() {
    let (_home, _away, mut shelf) = two_regions().await;
    let _frozen = Frozen::start();
    shelf.set("deduplicate", json!(true));
    pass(5 * MINUTE).await;
    let input = shelf.open();
    // The second region's chunks are committed, the first one's are lost in a crash.
    while let Ok(Read::Chunk(chunk)) = input.read().await {
        if chunk.partition.as_str().contains("@away") {
            shelf.commit(&*input, [chunk]).await;
        }
    }
    assert_eq!(shelf.ids.len(), 16, "it left out what the first region had read");
    shelf.poll(&*shelf.open()).await.unwrap();
    assert_eq!(shelf.ids.len(), 40);
}

#[tokio::test]
async fn a_crash_before_the_first_commit_does_not_move_the_beginning() {
    let workspace = Workspace::start(now).await;
    let _frozen = Frozen::start();
    workspace.insert([TableRow::new(noon().plus(30 * MINUTE), noon(), 1)]);
    let mut shelf = Shelf::new(&workspace);
    pass(50 * MINUTE).await;
    let input = shelf.open();
    let Ok(Read::Chunk(first)) = input.read().await else { panic!("a chunk") };
    assert!(first.records.is_empty(), "nothing that waits for a collector");
    shelf.commit(&*input, [first]).await;
    assert_eq!(shelf.read_uncommitted(&*input, 1).await, 1);
    drop(input);
    pass(20 * MINUTE).await;
    shelf.poll(&*shelf.open()).await.unwrap();
    assert_eq!(shelf.ids.len(), 1);
}

#[tokio::test]
async fn a_region_that_cannot_be_read_does_not_keep_the_other_from_it() {
    let (home, _away, mut shelf) = two_regions().await;
    let _frozen = Frozen::start();
    pass(5 * MINUTE).await;
    home.set_rights(Rights { no_select: true, ..Rights::default() });
    let input = shelf.open();
    for _ in 0..3 {
        let error = shelf.poll(&*input).await.unwrap_err();
        assert!(error.needs_a_human(), "{error}");
    }
    assert_eq!(shelf.ids.len(), 24, "the other region's");
    home.set_rights(Rights::default());
    shelf.poll(&*input).await.unwrap();
    assert_eq!(shelf.ids.len(), 48);
}

/// The workspace's time in a test whose machine is four days ahead of it.
fn four_days_ago() -> Millis {
    now().minus(96 * HOUR)
}

#[tokio::test]
async fn a_clock_that_is_days_ahead_neither_loses_rows_nor_delays_them() {
    let workspace = Workspace::start(four_days_ago).await;
    workspace.say_the_time();
    let _frozen = Frozen::start();
    let row = |number: u64| {
        let time = noon().minus(96 * HOUR).plus(MINUTE * u32::try_from(number).unwrap());
        TableRow::new(time, time.plus(MINUTE / 2), number)
    };
    let rows: Vec<TableRow> = (1..200).map(row).collect();
    workspace.insert(rows.clone());
    let mut shelf = Shelf::new(&workspace);
    let input = shelf.open();
    for poll in 0..26 {
        shelf.poll(&*input).await.unwrap();
        let visible = rows.iter().filter(|row| row.time.plus(12 * MINUTE) < four_days_ago()).count();
        assert!(shelf.ids.len() >= visible, "{} of {visible} rows by poll {poll}", shelf.ids.len());
        pass(10 * MINUTE).await;
    }
    shelf.has_each_once(rows.iter().map(|row| row.id.clone()));
    workspace.was_spoken_to_properly();
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_is_noticed_by_the_answer_before_anything_is_taken_for_read() {
    thread_local! {
        static BEHIND: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }
    fn theirs() -> Millis {
        now().minus(BEHIND.with(|hours| HOUR * hours.get()))
    }
    let workspace = Workspace::start(theirs).await;
    workspace.say_the_time();
    let _frozen = Frozen::start();
    let mut shelf = Shelf::new(&workspace);
    let input = shelf.open();
    shelf.poll(&*input).await.unwrap();
    // This machine's clock is set ahead by more than the look-back.
    BEHIND.with(|hours| hours.set(96));
    pass(96 * HOUR).await;
    shelf.poll(&*input).await.unwrap();
    let rows: Vec<TableRow> =
        (1..4).map(|number| TableRow::new(theirs().plus(MINUTE), theirs().plus(MINUTE), number)).collect();
    workspace.insert(rows.clone());
    pass(5 * MINUTE).await;
    shelf.poll(&*input).await.unwrap();
    shelf.has_each_once(rows.iter().map(|row| row.id.clone()));
}
