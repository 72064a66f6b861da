//! Notifications of a bucket through an SQS queue: an object is looked at within a second, not at the next poll.
//!
//! ```text
//!   queue ──receive──► notification ──► hints of every pipeline that reads there ──► delete
//!     ▲                                                                               │
//!     └───────────── 1 to 8 rounds at once: more while the answers are full ──────────┘
//! ```
//!
//! A message goes to one receiver only. So a process has one for each queue, and that tells all its pipelines: with one
//! each, they would take each other's hints. Two processes need two queues.
//!
//! A message is deleted as soon as its hints are in memory. Keeping it until the object is delivered was rejected: its
//! visibility would have to be extended all the while, and an object that cannot be read would come back for ever. What
//! a crash makes forgotten is found by listing.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::hints::Hints;
use super::notification::{self, Created};
use super::store::{self, S3Settings};
use crate::backoff::Backoff;
use crate::component::BuildError;
use crate::input::InputError;

#[cfg(feature = "aws")]
mod client;

/// Most messages of one answer: what SQS allows.
const MOST_MESSAGES: usize = 10;
/// Most rounds under way at once. At 20 ms a request, so many take 2,000 messages a second.
const MOST_ROUNDS: usize = 8;
/// Failures in a row that are borne in silence if they pass by themselves.
const FAILURES_UNTOLD: u32 = 2;
/// Pause after an answer of nothing but messages that S3 does not send: they come back, and must not keep us busy. And after one
/// of no message that came sooner than this: not every server that speaks SQS waits for messages as it is asked to.
const PAUSE: Duration = Duration::from_secs(1);

/// A message as it was received.
#[derive(Clone, Debug)]
struct Message {
    id: String,
    body: String,
    /// What it is deleted by.
    receipt: String,
}

/// A queue that notifications come through.
#[async_trait]
trait MessageQueue: Send + Sync {
    /// Waits for messages; none if there were none for a while. They are hidden from others for a minute.
    async fn receive(&self) -> Result<Vec<Message>, InputError>;

    /// Deletes messages of one answer by their receipts.
    async fn delete(&self, receipts: Vec<String>) -> Result<(), InputError>;
}

/// A configured queue and the bucket it speaks of.
pub(super) struct BucketQueue {
    url: String,
    bucket: String,
    queue: Arc<dyn MessageQueue>,
}

impl BucketQueue {
    /// The queue of the settings, if they name one. Sends no request.
    ///
    /// # Errors
    /// [`BuildError`] naming `s3.sqs_queue_url` or a key of the credentials.
    pub(super) fn open(bucket_url: &str, settings: &S3Settings) -> Result<Option<Self>, BuildError> {
        const KEY: &str = "s3.sqs_queue_url";
        let Some(url) = &settings.sqs_queue_url else { return Ok(None) };
        let Some(bucket) = bucket_url.strip_prefix("s3://") else {
            return Err(BuildError::new(KEY, "only objects in s3:// are notified through SQS; remove it"));
        };
        if settings.anonymous {
            return Err(BuildError::new(
                KEY,
                "cannot be used together with anonymous: a queue wants credentials",
            ));
        }
        let address = store::endpoint_url("s3", url, settings.allow_http)
            .map_err(|error| BuildError::new(KEY, error.message))?;
        if address.path().split('/').filter(|part| !part.is_empty()).count() != 2 {
            return Err(BuildError::new(
                KEY,
                format!("`{url}` is no queue; write https://sqs.<region>.amazonaws.com/<account>/<name>"),
            ));
        }
        let bucket = bucket.split('/').next().unwrap_or(bucket).to_owned();
        Ok(Some(Self { url: url.clone(), bucket, queue: client(&address, settings)? }))
    }
}

#[cfg(feature = "aws")]
fn client(address: &url::Url, settings: &S3Settings) -> Result<Arc<dyn MessageQueue>, BuildError> {
    Ok(Arc::new(client::SqsQueue::new(address, settings)?))
}

#[cfg(not(feature = "aws"))]
fn client(_address: &url::Url, _settings: &S3Settings) -> Result<Arc<dyn MessageQueue>, BuildError> {
    Err(BuildError::new(
        "s3.sqs_queue_url",
        "this build lacks the feature `aws`; build with it, or remove it",
    ))
}

/// The receivers of a process, by the URL of their queue.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    by_url: Mutex<HashMap<String, Weak<Receiver>>>,
}

impl Receivers {
    /// Passes on what a queue tells of the objects below a prefix, until the subscription is dropped. Who comes first
    /// starts the receiver, with its credentials.
    pub(super) fn subscribe(&self, queue: &BucketQueue, prefix: Path, hints: Arc<Hints>) -> Subscription {
        let mut by_url = self.by_url.lock().unwrap_or_else(PoisonError::into_inner);
        by_url.retain(|_, receiver| receiver.strong_count() > 0);
        let receiver = by_url.get(&queue.url).and_then(Weak::upgrade).unwrap_or_else(|| {
            let receiver = Arc::new(Receiver::start(&queue.url, Arc::clone(&queue.queue)));
            by_url.insert(queue.url.clone(), Arc::downgrade(&receiver));
            receiver
        });
        let listener = Arc::new(Listener { bucket: queue.bucket.clone(), prefix, hints });
        receiver.listeners.add(&listener);
        Subscription { _receiver: receiver, _listener: listener }
    }
}

/// A pipeline's share in a receiver; the last one to be dropped ends it.
#[derive(Debug)]
pub(super) struct Subscription {
    _receiver: Arc<Receiver>,
    _listener: Arc<Listener>,
}

/// The one task that receives from a queue.
#[derive(Debug)]
struct Receiver {
    listeners: Arc<Listeners>,
    _task: JoinSet<()>,
}

impl Receiver {
    fn start(url: &str, queue: Arc<dyn MessageQueue>) -> Self {
        let listeners = Arc::<Listeners>::default();
        let rounds = Rounds {
            url: url.to_owned(),
            queue,
            listeners: Arc::clone(&listeners),
            told_elsewhere: AtomicBool::new(false),
            told_strange: AtomicBool::new(false),
        };
        let mut task = JoinSet::new();
        task.spawn(rounds.run());
        Self { listeners, _task: task }
    }
}

/// A pipeline that wants to know what happens below a prefix of a bucket.
#[derive(Debug)]
struct Listener {
    bucket: String,
    prefix: Path,
    hints: Arc<Hints>,
}

impl Listener {
    /// Passes an object on; `false` if it is none of this pipeline's.
    fn hear(&self, object: &Created) -> bool {
        if object.bucket != self.bucket {
            return false;
        }
        let Ok(key) = Path::parse(&object.key) else { return false };
        if !key.prefix_matches(&self.prefix) {
            return false;
        }
        match &object.version {
            None => self.hints.look(key),
            Some(version) => self.hints.look_at(ObjectMeta {
                location: key,
                last_modified: version.written_at.into(),
                size: version.size,
                e_tag: Some(format!("\"{}\"", version.etag)),
                version: None,
            }),
        }
        true
    }
}

#[derive(Debug, Default)]
struct Listeners(Mutex<Vec<Weak<Listener>>>);

impl Listeners {
    fn add(&self, listener: &Arc<Listener>) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// Tells all of an object; `false` if it is nobody's.
    fn tell(&self, object: &Created) -> bool {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard = false;
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            heard |= listener.hear(object);
        }
        heard
    }
}

/// What came of one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    received: usize,
    understood: usize,
    /// The server did not wait for messages.
    at_once: bool,
}

impl Round {
    /// How many rounds are wanted at once after this one.
    fn wanted(self, before: usize) -> usize {
        if self.understood == MOST_MESSAGES {
            return (before * 2).min(MOST_ROUNDS);
        }
        before.saturating_sub(1).max(1)
    }
}

/// Receives, tells and deletes, without end.
struct Rounds {
    url: String,
    queue: Arc<dyn MessageQueue>,
    listeners: Arc<Listeners>,
    told_elsewhere: AtomicBool,
    told_strange: AtomicBool,
}

impl Rounds {
    async fn run(self) {
        let mut rounds = FuturesUnordered::new();
        let (mut wanted, mut next) = (1, Instant::now());
        let mut trouble = Trouble::new(&self.url);
        loop {
            tokio::select! {
                Some(ended) = rounds.next(), if !rounds.is_empty() => match ended {
                    Ok(round) => {
                        trouble.passed();
                        wanted = Round::wanted(round, wanted);
                        if round.understood == 0 && (round.received > 0 || round.at_once) {
                            next = Instant::now() + PAUSE;
                        }
                    }
                    Err(error) => {
                        wanted = 1;
                        next = Instant::now() + trouble.met(&error);
                    }
                },
                () = tokio::time::sleep_until(next), if rounds.len() < wanted => rounds.push(self.round()),
            }
        }
    }

    async fn round(&self) -> Result<Round, InputError> {
        let asked = Instant::now();
        let messages = self.queue.receive().await?;
        let at_once = asked.elapsed() < PAUSE;
        let received = messages.len();
        let receipts = self.tell(messages);
        let understood = receipts.len();
        if understood > 0 {
            // A message that is not deleted comes back, which harms nothing.
            self.queue.delete(receipts).await?;
        }
        Ok(Round { received, understood, at_once })
    }

    /// Tells the pipelines; gives the receipts of the messages that were understood.
    fn tell(&self, messages: Vec<Message>) -> Vec<String> {
        let (mut objects, mut receipts) = (BTreeSet::new(), Vec::new());
        for message in messages {
            match notification::created(&message.body) {
                Some(created) => {
                    objects.extend(created);
                    receipts.push(message.receipt);
                }
                // It may be somebody else's, by a slip of the configuration: not ours to delete.
                None => self.strange(&message.id),
            }
        }
        for object in &objects {
            if !self.listeners.tell(object) {
                self.elsewhere(object);
            }
        }
        receipts
    }

    fn elsewhere(&self, object: &Created) {
        if !self.told_elsewhere.swap(true, Ordering::Relaxed) {
            tracing::info!(
                queue = self.url,
                bucket = object.bucket,
                key = object.key,
                "the queue tells of an object that no input reads; from now on such are left out in silence. To spare the requests, restrict the bucket's notifications to the input's prefix"
            );
        }
    }

    fn strange(&self, message_id: &str) {
        if !self.told_strange.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                queue = self.url,
                message_id,
                "the queue holds messages that are no notifications of S3; they are left in it, others are followed. Check s3.sqs_queue_url, or give the queue a dead-letter queue"
            );
        }
    }
}

/// Failures of the queue: told once, until it can be read again.
struct Trouble<'a> {
    url: &'a str,
    failures: u32,
    /// Whether what was told needs a human.
    told: Option<bool>,
    backoff: Backoff,
}

impl<'a> Trouble<'a> {
    fn new(url: &'a str) -> Self {
        Self { url, failures: 0, told: None, backoff: Backoff::new(fastrand::u64(..)) }
    }

    /// Notes a failure; gives the wait before the next try.
    fn met(&mut self, error: &InputError) -> Duration {
        self.failures += 1;
        let human = error.needs_a_human();
        if self.told != Some(human) && (human || self.failures > FAILURES_UNTOLD) {
            self.told = Some(human);
            tracing::warn!(
                queue = self.url,
                "{error}; it is tried again, and until then objects are found by listing alone"
            );
        }
        self.backoff.next(None)
    }

    fn passed(&mut self) {
        if self.failures == 0 {
            return;
        }
        if self.told.take().is_some() {
            tracing::info!(queue = self.url, "the queue can be read again");
        }
        self.failures = 0;
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests;
