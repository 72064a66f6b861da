//! What the client calls back: partitions come and go, a token is wanted, something is wrong.
//!
//! All of it is called by the member's thread from within a poll. Partitions are taken leave of here, while they are
//! still ours; everything else is noted and looked at after the poll. Where a group without positions begins is
//! `beginning`'s to say.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::runtime::Handle;

use super::beginning::Beginning;
use super::ledger::Ledger;
use super::refusal::Complaint;
use crate::azure_token::AzureToken;
use crate::chunk::Partition;
use crate::kafka;

/// A partition that is ours now.
pub(super) struct Assigned {
    pub(super) topic: String,
    pub(super) number: i32,
    /// Its messages, and nobody else's.
    pub(super) queue: PartitionQueue<Group>,
}

/// What happened during a poll.
pub(super) enum News {
    Assigned(Vec<Assigned>),
    Revoked(Vec<Partition>),
    /// The group has a position in this topic, and the state does not know that it has begun.
    Begun(String),
    Complaint(Complaint),
}

/// The group as this member sees it.
pub(super) struct Group {
    ledger: Arc<Mutex<Ledger>>,
    /// Absent where it begins with the oldest message, as the client does by itself.
    beginning: Option<Mutex<Beginning>>,
    token: Option<Arc<AzureToken>>,
    runtime: Handle,
    news: Mutex<Vec<News>>,
    /// The consumer that this belongs to; weak, or neither would ever end.
    consumer: OnceLock<Weak<BaseConsumer<Self>>>,
}

/// The name of a partition in the engine: `<topic>/<number>`.
pub(super) fn partition(topic: &str, number: i32) -> Partition {
    Partition::new(&format!("{topic}/{number}"))
}

impl Group {
    pub(super) fn new(
        ledger: Arc<Mutex<Ledger>>,
        beginning: Option<Beginning>,
        token: Option<Arc<AzureToken>>,
        runtime: Handle,
    ) -> Self {
        let beginning = beginning.map(Mutex::new);
        Self { ledger, beginning, token, runtime, news: Mutex::default(), consumer: OnceLock::new() }
    }

    /// Told once the consumer is there.
    pub(super) fn belongs_to(&self, consumer: &Arc<BaseConsumer<Self>>) {
        let _known = self.consumer.set(Arc::downgrade(consumer));
    }

    /// What happened since the last call.
    pub(super) fn take_news(&self) -> Vec<News> {
        std::mem::take(&mut *lock(&self.news))
    }

    fn note(&self, news: News) {
        lock(&self.news).push(news);
    }

    fn complain(&self, error: &KafkaError, reason: String) {
        if let Some(code) = error.rdkafka_error_code() {
            self.note(News::Complaint(Complaint { code, reason }));
        }
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        if let Some(beginning) = &self.beginning {
            for topic in lock(beginning).begin(consumer, list) {
                self.note(News::Begun(topic));
            }
        }
        let Some(owner) = self.consumer.get().and_then(Weak::upgrade) else { return };
        let mut assigned = Vec::with_capacity(list.count());
        for element in list.elements() {
            let (topic, number) = (element.topic(), element.partition());
            // Before it is fetched from: so every message of it comes by its own queue.
            if let Some(queue) = owner.split_partition_queue(topic, number) {
                lock(&self.ledger).assigned(&partition(topic, number));
                assigned.push(Assigned { topic: topic.to_owned(), number, queue });
            }
        }
        self.note(News::Assigned(assigned));
    }

    /// Commits what is settled of the partitions while they are still ours.
    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let mut left = TopicPartitionList::new();
        let mut gone = Vec::with_capacity(list.count());
        for element in list.elements() {
            let partition = partition(element.topic(), element.partition());
            if let Some(next) = lock(&self.ledger).revoked(&partition) {
                let _added =
                    left.add_partition_offset(element.topic(), element.partition(), Offset::Offset(next));
            }
            gone.push(partition);
        }
        self.note(News::Revoked(gone));
        // Partitions that were lost, not revoked, may have another owner already.
        if left.count() == 0 || consumer.assignment_lost() {
            return;
        }
        if let Err(error) = consumer.commit(&left, CommitMode::Sync) {
            tracing::debug!(
                "cannot commit what was settled of revoked partitions: {error}; it is read again"
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Group {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes as an error too, but for this: a position that is older than what the topic keeps.
        if facility == "OFFSET" && matches!(level, RDKafkaLogLevel::Warning) {
            tracing::error!("{message}; messages expired before they were read: keep them for longer");
        } else {
            tracing::debug!("librdkafka {facility}: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(Code::PartitionEOF) {
            self.complain(&error, reason.to_owned());
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        kafka::oauth_token(self.token.as_deref(), &self.runtime)
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.assigned(consumer, list),
            Rebalance::Revoke(list) => self.revoked(consumer, list),
            Rebalance::Error(error) => self.complain(error, error.to_string()),
        }
    }
}
