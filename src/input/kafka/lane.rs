//! A partition that is ours: takes its messages off its queue and puts them together to chunks.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;

use super::gather::Gathering;
use super::group::{Assigned, Group, partition};
use crate::chunk::{Origin, Partition};

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
        Self { partition, topic, number, origin, queue, at_end: false, next: 0, until }
    }

    /// True if there is nothing to be read in it for now.
    pub(super) fn is_read(&self) -> bool {
        self.at_end || self.next >= self.until
    }

    /// Takes messages until there is no room left or no more of them. `pending`, if it is there, is of this partition.
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
}
