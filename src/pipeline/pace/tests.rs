use futures::FutureExt;

use super::*;

#[tokio::test(start_paused = true)]
async fn no_more_requests_go_at_once_than_the_limit_and_the_next_goes_when_one_ends() {
    let pace = Pace::new(1, 2);
    let (first, _second) = (pace.turn().await, pace.turn().await);
    assert!(pace.turn().now_or_never().is_none());
    let third = pace.turn();
    tokio::pin!(third);
    assert!(third.as_mut().now_or_never().is_none());
    drop(first);
    assert!(third.now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failing_collector_is_tried_by_one_request_after_the_shared_wait_whoever_asks() {
    let pace = Pace::new(1, 4);
    let turn = pace.turn().await;
    pace.failed(&turn, Some(Duration::from_secs(7)), None);
    drop(turn);
    let failed_at = Instant::now();
    let (first, second) = (pace.turn(), pace.turn());
    tokio::pin!(first, second);
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    let first = first.await;
    assert!(failed_at.elapsed() >= Duration::from_secs(7));
    assert!(second.as_mut().now_or_never().is_none(), "one at a time");
    pace.accepted(&first);
    drop(first);
    assert!(second.now_or_never().is_some(), "it works again");
}

#[tokio::test(start_paused = true)]
async fn whoever_tried_in_vain_stands_behind_those_who_wait() {
    let pace = Pace::new(1, 4);
    drop(pace.turn().await);
    pace.held(Duration::from_secs(15));
    let first = pace.turn().await;
    let second = pace.turn();
    tokio::pin!(second);
    assert!(second.as_mut().now_or_never().is_none());
    drop(first);
    let again = pace.turn();
    tokio::pin!(again);
    assert!(again.as_mut().now_or_never().is_none());
    second.await;
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_lets_another_try() {
    let pace = Pace::new(1, 4);
    let turn = pace.turn().await;
    pace.held(Duration::from_secs(15));
    drop(turn);
    assert!(pace.turn().now_or_never().is_none(), "dropped while it waits");
    pace.turn().await;
}

/// A pace that has come to this limit, with somebody always waiting for a turn.
fn in_demand(limit: usize, most: usize) -> Pace {
    let pace = Pace::new(1, most);
    pace.state().limit = limit;
    pace.state().measured = FEW;
    pace.state().waiting = 1;
    pace
}

/// Accepts a request after this time.
async fn accepted_after(pace: &Pace, took: Duration) {
    tokio::time::advance(Duration::from_millis(1)).await;
    let turn = pace.turn().await;
    tokio::time::advance(took).await;
    pace.accepted(&turn);
}

/// A collector that takes so many requests at once, each for this time; others wait there until one has ended.
struct Collector {
    at_once: tokio::sync::Semaphore,
    takes: Mutex<Duration>,
}

/// Sends without end for so long, from more senders than there may be requests.
async fn send_for(pace: &Pace, collector: &Collector, time: Duration) {
    let sender = || async {
        loop {
            let turn = pace.turn().await;
            let takes = *collector.takes.lock().unwrap();
            let place = collector.at_once.acquire().await.unwrap();
            tokio::time::sleep(takes).await;
            drop(place);
            pace.accepted(&turn);
        }
    };
    let senders = futures::future::join_all(std::iter::repeat_with(sender).take(100));
    let _: Result<Vec<()>, _> = tokio::time::timeout(time, senders).await;
}

fn collector(at_once: usize, takes: Duration) -> Collector {
    Collector { at_once: tokio::sync::Semaphore::new(at_once), takes: Mutex::new(takes) }
}

#[tokio::test(start_paused = true)]
async fn to_a_distant_collector_requests_double_with_each_round_trip_up_to_the_most() {
    let (pace, collector) = (Pace::new(1, 64), collector(1000, Duration::from_millis(200)));
    assert_eq!(pace.limit(), 4);
    send_for(&pace, &collector, Duration::from_millis(401)).await;
    assert!((5..=10).contains(&pace.limit()), "{}", pace.limit());
    send_for(&pace, &collector, Duration::from_millis(801)).await;
    assert_eq!(pace.limit(), 64);
    send_for(&pace, &collector, Duration::from_secs(60)).await;
    assert_eq!(pace.limit(), 64);
}

#[tokio::test(start_paused = true)]
async fn no_more_go_at_once_than_a_collector_has_hands_for_and_more_again_when_it_has() {
    let (pace, narrow) = (Pace::new(1, 256), collector(8, Duration::from_millis(300)));
    for _ in 0..20 {
        send_for(&pace, &narrow, Duration::from_secs(60)).await;
        assert!((8..40).contains(&pace.limit()), "{}", pace.limit());
    }
    let wide = collector(64, Duration::from_millis(300));
    send_for(&pace, &wide, Duration::from_secs(600)).await;
    assert!((64..200).contains(&pace.limit()), "{}", pace.limit());
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_has_become_slower_by_itself_is_found_to_be_so() {
    let (pace, collector) = (Pace::new(1, 64), collector(1000, Duration::from_millis(100)));
    let becomes_slower = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        *collector.takes.lock().unwrap() = Duration::from_millis(900);
        tokio::time::sleep(Duration::from_secs(20)).await;
        pace.limit()
    };
    let (held_back, ()) = tokio::join!(becomes_slower, send_for(&pace, &collector, Duration::from_secs(300)));
    assert!(held_back < 20, "it may be that they wait for each other: {held_back}");
    assert_eq!(pace.limit(), 64);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_nobody_waits_at_stays() {
    let pace = Pace::new(1, 64);
    for _ in 0..100 {
        accepted_after(&pace, Duration::from_millis(10)).await;
    }
    assert_eq!(pace.limit(), 4);
}

#[tokio::test(start_paused = true)]
async fn whoever_gave_up_waiting_counts_no_longer_as_waiting() {
    let pace = Pace::new(1, 1);
    let _turn = pace.turn().await;
    assert!(pace.turn().now_or_never().is_none());
    assert_eq!(pace.state().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn the_limit_halves_once_for_requests_under_way_together_and_recovers_one_by_one() {
    let pace = in_demand(8, 8);
    let turns = [pace.turn().await, pace.turn().await, pace.turn().await];
    for turn in &turns {
        pace.failed(turn, None, None);
    }
    drop(turns);
    assert_eq!(pace.limit(), 4);
    for expected in [4, 4, 4, 5, 5, 5, 5, 5, 6] {
        accepted_after(&pace, Duration::ZERO).await;
        assert_eq!(pace.limit(), expected);
    }
    let turn = pace.turn().await;
    pace.strained(&turn);
    assert_eq!(pace.limit(), 3);
}

#[tokio::test(start_paused = true)]
async fn answers_that_take_much_longer_than_usual_lower_the_limit() {
    let pace = in_demand(8, 8);
    for _ in 0..5 {
        accepted_after(&pace, Duration::from_millis(100)).await;
    }
    accepted_after(&pace, Duration::from_millis(1300)).await;
    assert_eq!(pace.limit(), 8);
    accepted_after(&pace, Duration::from_millis(3000)).await;
    assert_eq!(pace.limit(), 4);
}
