use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::*;
use crate::backoff::HOLD_INTERVAL;
use crate::batch::{Batch, Frame, Frames, Framing, Sequence};
use crate::budget::Budget;
use crate::chunk::Chunk;
use crate::compress::Encoding;
use crate::dead_letter::{DeadLetter, DeadLetterError};
use crate::kept::KeptRecords;
use crate::metrics::Metrics;
use crate::output::{ACK_TIMEOUT, AckId};
use crate::pipeline::Progress;

/// Takes everything and never acknowledges.
struct Silent;

#[async_trait]
impl Output for Silent {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, _request: &Request) -> Verdict {
        let [endpoint, channel, cookies] = ["s", "c", ""].map(str::to_owned);
        Verdict::PendingAck { ack: AckId { endpoint, channel, cookies, number: 1 }, slow_down: false }
    }
}

struct NoLetters;

#[async_trait]
impl DeadLetters for NoLetters {
    async fn keep(&self, _letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        Ok(())
    }
}

/// Keeps the first event of a request and may have lost the answer for the others, once; then takes everything.
#[derive(Default)]
struct Forgetful(Mutex<Vec<usize>>);

#[async_trait]
impl Output for Forgetful {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, request: &Request) -> Verdict {
        let mut seen = self.0.lock().unwrap();
        seen.push(request.events);
        if seen.len() > 1 {
            return Verdict::Accepted { slow_down: false };
        }
        let (duplicate, rejected) = (Vec::new(), Vec::new());
        let retry = (1..request.events).collect();
        Verdict::Partial { duplicate, retry, rejected, after: None, ambiguous: true }
    }
}

fn deliverer(output: Arc<dyn Output>, once: bool, news: mpsc::Sender<Progress>) -> Deliverer {
    let metrics = Metrics::new().unwrap().pipeline("in", "out");
    let disk = Disk {
        side: Side::DeadLetters,
        name: "in/out".into(),
        status: Status::default(),
        metrics: metrics.clone(),
        once,
    };
    let learned = Arc::new(LearnedSize::new(10_000));
    Deliverer {
        packer: Packer::new(Arc::clone(&output), Encoding::Gzip, Budget::new(1000), Arc::clone(&learned)),
        output,
        pace: Arc::new(Pace::new(1, 1)),
        hold_interval: HOLD_INTERVAL,
        slots: Arc::new(Semaphore::new(4)),
        unacknowledged: Arc::new(Semaphore::new(1)),
        refusals: Refusals::new(100),
        learned,
        status: Status::default(),
        metrics,
        dead_letters: Arc::new(NoLetters),
        disk,
        reporter: Reporter(news),
        name: "in/out".into(),
        once,
        gave_up: CancellationToken::new(),
        said: Said::default(),
        stop: CancellationToken::new(),
    }
}

/// Delivers one batch of so many events.
async fn deliver(deliverer: &Deliverer, events: u32) -> Result<(), PipelineError> {
    deliver_lines(deliverer, "x\n", events).await
}

/// Delivers one batch of so many events, each of two bytes.
async fn deliver_lines(deliverer: &Deliverer, line: &str, events: u32) -> Result<(), PipelineError> {
    deliver_body(deliverer, line.repeat(events as usize)).await
}

/// Delivers one batch of events of two bytes.
async fn deliver_body(deliverer: &Deliverer, body: String) -> Result<(), PipelineError> {
    let events = u32::try_from(body.len() / 2).unwrap();
    let frame = |end| Frame { end, record_end: 1, ..Frame::default() };
    let chunk = Chunk { payload: "x".into(), ..Chunk::default() };
    let frames = Frames {
        sequence: Sequence(1),
        records: KeptRecords::of(chunk, &Budget::new(1000)),
        frames: (1..=events).map(|number| frame(2 * number)).collect(),
    };
    let mut batch = Batch::default();
    batch.push(&Arc::new(frames), &body.into_bytes().into(), 0..events as usize);
    let slot = Arc::clone(&deliverer.slots).acquire_owned().await.unwrap();
    let [piece] = <[Piece; 1]>::try_from(deliverer.packer.pack(batch).await?).unwrap();
    deliverer.deliver(piece, slot).await
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_only_what_may_have_arrived_is_sent_again_and_counts_as_ambiguous() {
    let (news, mut told) = mpsc::channel(16);
    let output = Arc::new(Forgetful::default());
    let deliverer = deliverer(Arc::clone(&output) as Arc<dyn Output>, false, news);
    deliver(&deliverer, 4).await.unwrap();
    assert_eq!(*output.0.lock().unwrap(), [4, 3]);
    assert_eq!(deliverer.metrics.ambiguous_resends.get(), 3);
    assert_eq!(deliverer.metrics.events_delivered.get(), 4);
    assert!(told.recv().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_single_run_gives_up_at_a_collector_that_never_acknowledges() {
    let (news, _told) = mpsc::channel(16);
    let deliverer = deliverer(Arc::new(Silent), true, news);
    let ended = tokio::time::timeout(2 * ACK_TIMEOUT, deliver(&deliverer, 1)).await;
    assert!(matches!(ended, Ok(Err(PipelineError::Collector { .. }))), "{ended:?}");
}

/// Refuses every event of a batch that begins with `b`, each for its own sake, and takes all others but where it is closed.
#[derive(Default)]
struct Picky {
    closed: bool,
}

#[async_trait]
impl Output for Picky {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, request: &Request) -> Verdict {
        let body = request.encoding.decompress(&request.body, request.uncompressed_bytes).unwrap();
        if !self.closed && !body.starts_with(b"b") {
            return Verdict::Accepted { slow_down: false };
        }
        let rejection = || Rejection { reason: "mapper_parsing_exception".to_owned() };
        let rejected = (0..request.events).map(|index| (index, rejection())).collect();
        let (duplicate, retry) = (Vec::new(), Vec::new());
        Verdict::Partial { duplicate, retry, rejected, after: None, ambiguous: false }
    }
}

/// Delivers a bad batch of 2,000 events, and a good event every ten seconds beside it, for an hour at most: how long it
/// took, the dead letters, and what the collector was said to do.
async fn beside_good_ones(output: Picky) -> (Option<Duration>, u64, Vec<String>) {
    let (news, mut told) = mpsc::channel(16);
    let deliverer = deliverer(Arc::new(output), false, news);
    let status = deliverer.status.clone();
    status.enter(Phase::Running);
    let (began, mut reasons) = (Instant::now(), Vec::new());
    let settled = async { while told.recv().await.is_some() {} };
    let others = async {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            deliver_lines(&deliverer, "g\n", 1).await.unwrap();
        }
    };
    let watched = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            reasons.extend(status.snapshot().reason);
            reasons.dedup();
        }
    };
    let took = tokio::select! {
        delivered = deliver_lines(&deliverer, "b\n", 2000) => { delivered.unwrap(); Some(began.elapsed()) }
        () = others => None,
        () = watched => None,
        () = settled => None,
        () = tokio::time::sleep(Duration::from_secs(3600)) => None,
    };
    (took, deliverer.metrics.dead_letters(), reasons)
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_refused_event_by_event_while_others_are_taken_becomes_dead_letters_in_the_end() {
    let (took, dead, reasons) = beside_good_ones(Picky::default()).await;
    assert_eq!(dead, 2000, "{reasons:?}");
    assert!(took.is_some_and(|took| took < Duration::from_secs(1200)), "{took:?}");
    assert!(reasons[0].contains("refused 2000 events in a row"), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_taken_a_batch_that_is_refused_event_by_event_is_held() {
    let (took, dead, _) = beside_good_ones(Picky { closed: true }).await;
    // A good event is one of those that are believed to be bad.
    assert!(took.is_none() && dead <= 100, "{dead} dead letters after {took:?}");
}

/// Is not there.
struct Gone;

#[async_trait]
impl Output for Gone {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, _request: &Request) -> Verdict {
        Verdict::retry("cannot reach splunk", None)
    }
}

/// Where a log is written to.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn that_a_collector_still_fails_is_logged_now_and_then() {
    let (log, (news, _told)) = (Log::default(), mpsc::channel(16));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || writer.clone())
        .finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let deliverer = deliverer(Arc::new(Gone), false, news);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, deliver(&deliverer, 1)).await.is_err());
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(said("cannot reach splunk; trying again until it works, nothing is lost"), 1, "{log}");
    assert!((5..=9).contains(&said(": cannot reach splunk; trying again, nothing is lost")), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_single_run_tries_for_two_minutes_and_not_for_another_wait() {
    for _ in 0..10 {
        let (news, _told) = mpsc::channel(16);
        let mut deliverer = deliverer(Arc::new(Gone), true, news);
        deliverer.pace = Arc::new(Pace::new(fastrand::u64(..), 1));
        let began = Instant::now();
        let ended = deliver(&deliverer, 1).await;
        assert!(matches!(ended, Err(PipelineError::Collector { .. })), "{ended:?}");
        assert_eq!(began.elapsed().as_secs(), ONCE_PATIENCE.as_secs());
    }
}

/// Reads up to the first event `b`, refuses that, and makes sure of nothing before it; how many came with each request.
#[derive(Default)]
struct Unsure(Mutex<Vec<usize>>);

#[async_trait]
impl Output for Unsure {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, request: &Request) -> Verdict {
        self.0.lock().unwrap().push(request.events);
        let body = request.encoding.decompress(&request.body, request.uncompressed_bytes).unwrap();
        let Some(at) = body.chunks(2).position(|event| event.starts_with(b"b")) else {
            return Verdict::Accepted { slow_down: false };
        };
        let retry = (0..at).chain(at + 1..request.events).collect();
        let rejected = vec![(at, Rejection { reason: "no event".to_owned() })];
        Verdict::Partial { duplicate: Vec::new(), retry, rejected, after: None, ambiguous: at > 0 }
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_refused_event_and_is_not_safe_is_sent_once_more_and_not_with_each_further_refusal()
 {
    let (news, mut told) = mpsc::channel(64);
    let output = Arc::new(Unsure::default());
    let mut deliverer = deliverer(Arc::clone(&output) as Arc<dyn Output>, false, news);
    // With two in a row it would be held.
    deliverer.refusals = Refusals::new(1);
    let began = Instant::now();
    deliver_body(&deliverer, "g\ng\nb\n".repeat(3) + "g\n").await.unwrap();
    assert_eq!(*output.0.lock().unwrap(), [10, 2, 7, 2, 4, 2, 1]);
    assert_eq!((deliverer.metrics.events_delivered.get(), deliverer.metrics.dead_letters()), (7, 3));
    assert_eq!(began.elapsed(), Duration::ZERO, "a collector that looked at a request is not busy");
    assert!(told.recv().await.is_some());
}

/// Refuses the first, the third and the last of four events, and tells of the last one first.
struct Backwards;

#[async_trait]
impl Output for Backwards {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, _request: &Request) -> Verdict {
        let rejection = |index: usize| (index, Rejection { reason: format!("no. {index}") });
        let (duplicate, retry) = (Vec::new(), Vec::new());
        let rejected = [3, 0, 2].map(rejection).into();
        Verdict::Partial { duplicate, retry, rejected, after: None, ambiguous: false }
    }
}

/// What was kept, each time.
#[derive(Default)]
struct Letters(Mutex<Vec<Vec<(String, String)>>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn keep(&self, letters: Vec<DeadLetter>) -> Result<(), DeadLetterError> {
        let text = |letter: DeadLetter| (String::from_utf8(letter.record.to_vec()).unwrap(), letter.detail);
        self.0.lock().unwrap().push(letters.into_iter().map(text).collect());
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_refuses_is_kept_at_once_each_event_with_its_reason() {
    let (news, mut told) = mpsc::channel(16);
    let letters = Arc::<Letters>::default();
    let deliverer =
        Deliverer { dead_letters: Arc::clone(&letters) as _, ..deliverer(Arc::new(Backwards), true, news) };
    let mut batch = Batch::default();
    // Of the first chunk, two runs are refused.
    for (payload, count) in [("abc", 3), ("d", 1)] {
        let frame = |at| Frame { end: 2 * at, record_start: at - 1, record_end: at, ..Frame::default() };
        let chunk = Chunk { payload: payload.into(), ..Chunk::default() };
        let records = KeptRecords::of(chunk, &Budget::new(1000));
        let frames = Frames { sequence: Sequence(1), records, frames: (1..=count).map(frame).collect() };
        batch.push(&Arc::new(frames), &"x\n".repeat(payload.len()).into_bytes().into(), 0..payload.len());
    }
    let slot = Arc::clone(&deliverer.slots).acquire_owned().await.unwrap();
    let [piece] = <[Piece; 1]>::try_from(deliverer.packer.pack(batch).await.unwrap()).unwrap();
    let settled = async { while told.recv().await.is_some() {} };
    tokio::select! {
        delivered = deliverer.deliver(piece, slot) => delivered.unwrap(),
        () = settled => {}
    }
    let expected = [("a", "no. 0"), ("c", "no. 2"), ("d", "no. 3")];
    let expected = expected.map(|(record, reason)| (record.to_owned(), reason.to_owned()));
    assert_eq!(*letters.0.lock().unwrap(), [expected.to_vec()]);
}
