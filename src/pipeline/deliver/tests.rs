use async_trait::async_trait;
use tokio::sync::mpsc;

use super::*;
use crate::backoff::HOLD_INTERVAL;
use crate::batch::{Batch, Frame, Frames, Framing, Sequence};
use crate::budget::Budget;
use crate::compress::Encoding;
use crate::dead_letter::DeadLetterError;
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
    let learned = Arc::new(LearnedSize::new(1000));
    Deliverer {
        packer: Packer::new(Arc::clone(&output), Encoding::Gzip, Budget::new(1000), Arc::clone(&learned)),
        output,
        pace: Arc::new(Pace::new(1, 1)),
        hold_interval: HOLD_INTERVAL,
        slots: Arc::new(Semaphore::new(1)),
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
        told: Mutex::default(),
    }
}

/// Delivers one batch of so many events.
async fn deliver(deliverer: &Deliverer, events: u32) -> Result<(), PipelineError> {
    let frame = |end| Frame { end, record_end: 1, ..Frame::default() };
    let frames = Frames {
        sequence: Sequence(1),
        records: KeptRecords::default(),
        frames: (1..=events).map(|number| frame(2 * number)).collect(),
    };
    let mut batch = Batch::default();
    batch.push(&Arc::new(frames), &b"x\n".repeat(events as usize).into(), 0..events as usize);
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
