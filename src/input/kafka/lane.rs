//! A partition that is ours: takes its messages off its queue and puts them together to chunks.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Message, TopicPartitionList};
use tokio::time::Instant;

use super::gather::Gathering;
use super::group::{Assigned, Group, partition};
use crate::chunk::{Origin, Partition};
use crate::input::InputError;

/// Time before a batch that could not be read is fetched again.
const AGAIN: Duration = Duration::from_secs(30);

/// True for an error of a batch that was fetched and cannot be read. The client goes on behind it, as if it were empty.
pub(super) fn passes_over(code: Code) -> bool {
    matches!(code, Code::BadMessage | Code::BadCompression | Code::NotImplemented)
}

pub(super) struct Lane {
    pub(super) partition: Partition,
    pub(super) topic: String,
    pub(super) number: i32,
    pub(super) origin: Arc<Origin>,
    queue: PartitionQueue<Group>,
    /// True while there is nothing new in it.
    at_end: bool,
    /// Offset after the last message that went into a chunk.
    next: i64,
    /// A single run reads up to this offset.
    until: i64,
    /// Since when it stands still at a batch that cannot be read.
    broken: Option<Instant>,
    /// What has not been told of that yet.
    trouble: Option<InputError>,
}

/// A message that had no room left in its chunk.
pub(super) struct Pending {
    pub(super) partition: Partition,
    offset: i64,
    value: Option<Vec<u8>>,
}

impl Pending {
    pub(super) fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Vec::len)
    }
}

impl Lane {
    /// A partition, to be read up to an offset and not beyond.
    pub(super) fn new(assigned: Assigned, until: i64, cloud: Option<&'static str>) -> Self {
        let Assigned { topic, number, queue } = assigned;
        let partition = partition(&topic, number);
        let origin = Arc::new(Origin { cloud, ..Origin::of_object(partition.as_str()) });
        Self {
            partition,
            topic,
            number,
            origin,
            queue,
            at_end: false,
            next: 0,
            until,
            broken: None,
            trouble: None,
        }
    }

    /// True while it stands still at a batch that cannot be read.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Why it stands still, once each time.
    pub(super) fn take_trouble(&mut self) -> Option<InputError> {
        self.trouble.take()
    }

    /// Has the client forget what it holds of the partition, and fetch no more of it; or go on, with the first message
    /// that was not taken.
    pub(super) fn pause(&self, consumer: &BaseConsumer<Group>, pause: bool) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, self.number);
        if pause { consumer.pause(&list) } else { consumer.resume(&list) }
    }

    /// Fetches a batch again that could not be read, when it is time to.
    pub(super) fn try_again(&mut self, consumer: &BaseConsumer<Group>) {
        if self.broken.is_some_and(|since| since.elapsed() >= AGAIN) {
            self.broken = self.pause(consumer, false).is_err().then(Instant::now);
        }
    }

    /// True if there is nothing to be read in it for now.
    pub(super) fn is_read(&self) -> bool {
        self.at_end || self.next >= self.until || self.is_broken()
    }

    /// Takes messages until there is no room left or no more of them. `pending`, if it is there, is of this partition.
    /// Nothing behind a batch that cannot be read is taken.
    pub(super) fn gather(
        &mut self,
        pending: &mut Option<Pending>,
        room: usize,
        max_message_bytes: usize,
    ) -> Option<Gathering> {
        let mut gathering: Option<Gathering> = None;
        if let Some(Pending { offset, value, .. }) = pending.take() {
            gathering.insert(Gathering::new(offset, max_message_bytes)).add(offset, value.as_deref());
        }
        if self.is_broken() {
            return gathering;
        }
        loop {
            self.next = gathering.as_ref().map_or(self.next, Gathering::next);
            if self.next >= self.until || gathering.as_ref().is_some_and(|gathering| gathering.is_full(room))
            {
                return gathering;
            }
            match self.queue.poll(Duration::ZERO) {
                None => return gathering,
                Some(Err(error)) => {
                    self.at_end = matches!(error, KafkaError::PartitionEOF(_));
                    if error.rdkafka_error_code().is_some_and(passes_over) {
                        self.broken = Some(Instant::now());
                        self.trouble = Some(self.stands_still(error));
                    }
                    return gathering;
                }
                Some(Ok(message)) => {
                    self.at_end = false;
                    let (offset, value) = (message.offset(), message.payload());
                    let begun = gathering.take().unwrap_or_else(|| Gathering::new(offset, max_message_bytes));
                    if !begun.has_room(offset, value, room) {
                        let (partition, value) = (self.partition.clone(), value.map(<[u8]>::to_vec));
                        *pending = Some(Pending { partition, offset, value });
                        return Some(begun).filter(|begun| !begun.is_empty());
                    }
                    gathering.insert(begun).add(offset, value);
                }
            }
        }
    }

    fn stands_still(&self, error: KafkaError) -> InputError {
        // Before the first message, only the group knows where it stands.
        let place = if self.next > 0 { format!(" at offset {}", self.next) } else { String::new() };
        InputError::Refused {
            action: format!("cannot read the next batch of {}{place}", self.partition.as_str()),
            source: error.into(),
            remedy: "nothing behind it is read until it can be: see to the disks of the brokers and the way to them, \
                     or move the group behind it"
                .to_owned(),
        }
    }
}
