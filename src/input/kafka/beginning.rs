//! Where a group with `start = "latest"` begins a topic: after what was there at the first start, and never later.
//!
//! | the group in this topic | the state | begins |
//! |---|---|---|
//! | has a position in one partition at least | | there; the others were added since, and begin with their oldest message |
//! | has none | knows nothing of it | at the end of all partitions: it is the first start |
//! | has none | knows that it has begun | with the oldest message: brokers forget a group that was away, seven days by default |
//!
//! Where it begins is committed at once, for all partitions of the topic, those of other members too. Were it only read
//! from there, a restart before the first commit would skip what came meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::group::Group;
use crate::chunk::{Chunk, Partition, Position};
use crate::input::Resume;
use crate::state::StateError;

/// Longest wait for an answer of the broker within a callback.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks whether another member has begun.
const LOOK: Duration = Duration::from_millis(100);

/// The topics that the group is known to have begun.
pub(super) struct Beginning {
    begun: BTreeSet<String>,
}

impl Beginning {
    /// What the state knows of these topics.
    ///
    /// # Errors
    /// [`StateError`] if the state cannot be read.
    pub(super) async fn read(group: &str, topics: &[String], resume: &Resume) -> Result<Self, StateError> {
        let marks: BTreeMap<_, _> = topics.iter().map(|topic| (mark(group, topic), topic)).collect();
        let found = resume.positions(marks.keys().cloned().collect()).await?;
        let topic_of =
            |(partition, _): &(Partition, Position)| marks.get(partition).map(|topic| (*topic).clone());
        Ok(Self { begun: found.iter().filter_map(topic_of).collect() })
    }

    /// Sees that the group has positions in the topics of these partitions; those that the state does not know it of.
    pub(super) fn begin(&mut self, consumer: &BaseConsumer<Group>, list: &TopicPartitionList) -> Vec<String> {
        let mut assigned: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for element in list.elements() {
            assigned.entry(element.topic().to_owned()).or_default().insert(element.partition());
        }
        let mut news = Vec::new();
        for (topic, ours) in assigned {
            match begin_topic(consumer, &topic, &ours, self.begun.contains(&topic)) {
                Ok(()) if self.begun.insert(topic.clone()) => news.push(topic),
                Ok(()) => {}
                Err(error) => tracing::warn!(
                    "cannot begin {topic} at the newest message: {error}; beginning with the oldest"
                ),
            }
        }
        news
    }
}

/// Where the state keeps that a group has begun a topic. Not a name any partition could have: no topic is empty.
fn mark(group: &str, topic: &str) -> Partition {
    Partition::new(&format!("//begun/{group}/{topic}"))
}

/// Has the state know it.
pub(super) fn told(group: &str, topic: &str) -> Chunk {
    Chunk { partition: mark(group, topic), position: Position::new("begun"), ..Chunk::default() }
}

/// Sees that the group has a position in a topic, of which these partitions are ours.
pub(super) fn begin_topic<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    ours: &BTreeSet<i32>,
    begun: bool,
) -> KafkaResult<()> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        all.add_partition(topic, partition.id());
    }
    let first = all.elements().iter().map(|element| element.partition()).min();
    // Members that start at once would each commit an end of their own, and the later one would skip what came in between.
    // The member that has the first partition commits, and the others wait for it while it can be thought alive.
    let patience = if first.is_some_and(|first| ours.contains(&first)) { Duration::ZERO } else { PATIENCE };
    let began = Instant::now();
    let known = loop {
        let known = consumer.committed_offsets(all.clone(), PATIENCE)?;
        if known.elements().iter().any(|known| known.offset() != Offset::Invalid) {
            return Ok(());
        }
        if began.elapsed() >= patience {
            break known;
        }
        pause();
    };
    if begun {
        tracing::error!(
            "the brokers have forgotten where the group was in {topic}; beginning with the oldest message: what comes \
             again has the ids it had"
        );
    }
    let mut beginnings = TopicPartitionList::new();
    for fresh in known.elements() {
        // What could not be asked for may have one.
        fresh.error()?;
        let (oldest, end) = consumer.fetch_watermarks(topic, fresh.partition(), PATIENCE)?;
        let offset = Offset::Offset(if begun { oldest } else { end });
        beginnings.add_partition_offset(topic, fresh.partition(), offset)?;
    }
    if beginnings.count() > 0 { consumer.commit(&beginnings, CommitMode::Sync) } else { Ok(()) }
}

#[expect(clippy::disallowed_methods, reason = "on the member's own thread, within a callback")]
fn pause() {
    std::thread::sleep(LOOK);
}
