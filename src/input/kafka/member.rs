//! The member of the consumer group: one thread that polls the client, makes chunks and commits offsets.
//!
//! A thread, because the client calls back from within its polls and has to wait for answers there. It polls at least
//! every [`REST`], also while nothing may be read because the collector is down: a member that is not heard of loses its
//! partitions. Each partition has a queue of its own, which is left alone until there is room for its messages.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::beginning;
use super::group::{Assigned, Group, News};
use super::lane::{Lane, Pending, passes_over};
use super::ledger::Ledger;
use super::refusal::{Complaint, Names};
use crate::budget::Budget;
use crate::chunk::Partition;
use crate::input::{InputError, Read};

/// Longest time between two polls.
const REST: Duration = Duration::from_millis(50);
/// Shortest time between two commits. Event Hubs takes four a second for each partition.
const COMMIT_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two looks at a quiet topic that are reported.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for an answer of a broker.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a single run waits for partitions that others have to give up first.
const ONCE_WAITS: Duration = Duration::from_secs(10);
/// A group that lets nobody in for so long is worth a word.
const OUTSIDE: Duration = Duration::from_secs(60);

/// What a read gives.
pub(super) type Said = Result<Read, InputError>;

/// What a member is made from.
pub(super) struct Plan {
    pub(super) client: ClientConfig,
    pub(super) topics: Vec<String>,
    pub(super) names: Names,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) budget: Budget,
    pub(super) max_message_bytes: usize,
    pub(super) cloud: Option<&'static str>,
    pub(super) once: bool,
    pub(super) reads: mpsc::Sender<Said>,
    pub(super) stop: Arc<AtomicBool>,
}

pub(super) struct Member {
    plan: Plan,
    consumer: Arc<BaseConsumer<Group>>,
    lanes: Vec<Lane>,
    /// Whose turn it was.
    last_lane: usize,
    pending: Option<Pending>,
    /// What the engine has not been told yet.
    unsaid: VecDeque<Said>,
    started: Instant,
    /// When the group let us in.
    joined: Option<Instant>,
    /// The last complaint about a single broker.
    last: Option<Complaint>,
    /// Topics that are said not to be there.
    missing: Vec<String>,
    /// True from an error that was told until it is known to have passed.
    troubled: bool,
    /// True once a single run was said to be at its end.
    ended: bool,
    last_commit: Instant,
    last_idle: Instant,
}

/// Runs until told to stop, or until something needs a human: that is its last word. The channel closes when it has
/// left the group, and a new member may begin.
pub(super) fn run(plan: Plan, group: Group) {
    let reads = plan.reads.clone();
    let mut member = match Member::join(plan, group) {
        Ok(member) => member,
        Err(error) => {
            let _ended = reads.blocking_send(Err(error));
            return;
        }
    };
    let last = loop {
        if let ControlFlow::Break(last) = member.turn() {
            break last;
        }
    };
    // Leaving takes as long as the broker does, and the channel may be full as long as the collector is down.
    let unsaid = last.and_then(|last| match reads.try_send(last) {
        Err(mpsc::error::TrySendError::Full(last)) => Some(last),
        _ => None,
    });
    member.leave();
    if let Some(last) = unsaid {
        let _ended = reads.blocking_send(last);
    }
}

impl Member {
    fn join(plan: Plan, group: Group) -> Result<Self, InputError> {
        let refused = |error: KafkaError| InputError::Refused {
            action: "cannot set up the Kafka client".to_owned(),
            source: error.into(),
            remedy: "check `tls` and its files".to_owned(),
        };
        let consumer: BaseConsumer<Group> = plan.client.create_with_context(group).map_err(refused)?;
        let consumer = Arc::new(consumer);
        consumer.context().belongs_to(&consumer);
        let topics: Vec<&str> = plan.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(refused)?;
        let now = Instant::now();
        Ok(Self {
            plan,
            consumer,
            lanes: Vec::new(),
            last_lane: 0,
            pending: None,
            unsaid: VecDeque::new(),
            started: now,
            joined: None,
            last: None,
            missing: Vec::new(),
            troubled: false,
            ended: false,
            last_commit: now,
            last_idle: now,
        })
    }

    /// Leaves the group: dropping the consumer commits what is settled, from within its last polls.
    fn leave(self) {
        let Self { consumer, lanes, .. } = self;
        drop(lanes);
        drop(consumer.context().take_news());
        drop(consumer);
    }

    /// One round; ends with the last word.
    fn turn(&mut self) -> ControlFlow<Option<Said>> {
        if self.plan.stop.load(Ordering::Relaxed) || self.plan.reads.is_closed() {
            return ControlFlow::Break(None);
        }
        self.commit()?;
        self.say();
        if self.unsaid.is_empty() && self.fill() {
            return self.listen(Duration::ZERO);
        }
        self.listen(REST)?;
        self.rest()
    }

    /// Serves the client, and looks at what it had to tell.
    fn listen(&mut self, wait: Duration) -> ControlFlow<Option<Said>> {
        // Messages come by the queues of their partitions, errors by the callback.
        if let Some(Ok(stray)) = self.consumer.poll(wait) {
            let error = InputError::Transient {
                action: format!("cannot read from {}", self.plan.names.servers),
                source: format!("a message of {} came by another queue", stray.topic()).into(),
            };
            return ControlFlow::Break(Some(Err(error)));
        }
        let consumer = Arc::clone(&self.consumer);
        for news in consumer.context().take_news() {
            match news {
                News::Assigned(assigned) => self.assigned(assigned),
                News::Revoked(gone) => {
                    // This very client may get it back.
                    for lane in self.lanes.iter().filter(|lane| lane.is_broken()) {
                        let _fetched = lane.pause(&self.consumer, !gone.contains(&lane.partition));
                    }
                    self.lanes.retain(|lane| !gone.contains(&lane.partition));
                    // It is read again by whoever has the partition next.
                    let _dropped = self.pending.take_if(|pending| gone.contains(&pending.partition));
                }
                News::Begun(topic) => {
                    let told = beginning::told(&self.plan.names.group, &topic);
                    self.unsaid.push_back(Ok(Read::Chunk(told)));
                }
                News::Complaint(complaint) => self.complained(complaint)?,
            }
        }
        ControlFlow::Continue(())
    }

    fn assigned(&mut self, assigned: Vec<Assigned>) {
        for assigned in assigned {
            let until = if self.plan.once { self.end_of(&assigned) } else { i64::MAX };
            self.lanes.push(Lane::new(assigned, until, self.plan.cloud));
        }
        tracing::info!(group = self.plan.names.group, partitions = self.lanes.len(), "partitions assigned");
        self.joined.get_or_insert_with(Instant::now);
        self.recovered();
    }

    /// Where a single run ends in a partition; where that cannot be learned, at the end it meets.
    fn end_of(&self, assigned: &Assigned) -> i64 {
        let Assigned { topic, number, .. } = assigned;
        self.consumer.fetch_watermarks(topic, *number, PATIENCE).map_or(i64::MAX, |(_, end)| end)
    }

    fn complained(&mut self, complaint: Complaint) -> ControlFlow<Option<Said>> {
        tracing::debug!(group = self.plan.names.group, "{:?}: {}", complaint.code, complaint.reason);
        // Of a batch, its lane tells.
        let told = passes_over(complaint.code) && self.lanes.iter().any(Lane::is_broken);
        if complaint.is_of_rebalancing() || told {
            return ControlFlow::Continue(());
        }
        if complaint.is_of_one_broker() {
            self.last = Some(complaint);
            return ControlFlow::Continue(());
        }
        if complaint.is_of_topic()
            && let Some(topic) =
                self.plan.topics.iter().find(|topic| names(&complaint.reason, topic)).cloned()
        {
            if !self.missing.contains(&topic) {
                self.missing.push(topic.clone());
            }
            // One of several: the others go on, and the client looks for it again.
            if self.missing.len() < self.plan.topics.len() {
                let error = complaint.explain(&self.plan.names, self.joined.is_some());
                self.unsaid.push_back(Ok(Read::Trouble { partition: Partition::new(&topic), error }));
                return ControlFlow::Continue(());
            }
        }
        let complaint = match (complaint.code, self.last.take()) {
            (Code::AllBrokersDown, Some(last)) => Complaint { reason: last.reason, ..complaint },
            _ => complaint,
        };
        let fatal = complaint.code == Code::Fatal;
        let error = complaint.explain(&self.plan.names, self.joined.is_some());
        if error.needs_a_human() || fatal {
            return ControlFlow::Break(Some(Err(error)));
        }
        self.in_trouble(error);
        ControlFlow::Continue(())
    }

    /// Tells the engine what is wrong, once until it has been told.
    fn in_trouble(&mut self, error: InputError) {
        self.troubled = true;
        if !self.unsaid.iter().any(Result::is_err) {
            self.unsaid.push_back(Err(error));
        }
    }

    /// Tells the engine that all is well. What it has not been told yet has passed.
    fn recovered(&mut self) {
        self.troubled = false;
        self.unsaid.retain(|said| !matches!(said, Err(_) | Ok(Read::Idle)));
        self.unsaid.push_back(Ok(Read::Idle));
    }

    /// Passes on what the engine is to be told, as far as there is room.
    fn say(&mut self) {
        while let Some(said) = self.unsaid.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(said)) = self.plan.reads.try_send(said) {
                self.unsaid.push_front(said);
                return;
            }
        }
    }

    /// Reads a chunk, if there are messages and room for them.
    fn fill(&mut self) -> bool {
        let reads = self.plan.reads.clone();
        let Ok(permit) = reads.try_reserve() else { return false };
        let pending = self.pending.as_ref().map_or(0, Pending::bytes);
        let room = (self.plan.budget.total() / 8).clamp(16 << 10, 1 << 20);
        let Some(credit) = self.plan.budget.try_take(room.max(pending)) else { return false };
        for _ in 0..self.lanes.len() {
            self.last_lane = (self.last_lane + 1) % self.lanes.len();
            let Some(lane) = self.lanes.get_mut(self.last_lane) else { return false };
            if self.pending.as_ref().is_some_and(|pending| pending.partition != lane.partition) {
                continue;
            }
            lane.try_again(&self.consumer);
            let gathering = lane.gather(&mut self.pending, room, self.plan.max_message_bytes);
            if let Some(error) = lane.take_trouble() {
                let _paused = lane.pause(&self.consumer, true);
                self.unsaid.push_back(Ok(Read::Trouble { partition: lane.partition.clone(), error }));
            }
            let Some(gathering) = gathering else { continue };
            credit.shrink_to(gathering.bytes());
            lock(&self.plan.ledger).read(&lane.partition, gathering.next(), credit);
            permit.send(Ok(Read::Chunk(gathering.into_chunk(&lane.partition, &lane.origin))));
            if self.troubled {
                self.recovered();
            }
            return true;
        }
        false
    }

    /// Has settled offsets committed, not all too often, and waits for the answer: it is this thread that also loses
    /// partitions, so none is lost in between. (Nor does the client tell how a commit ended that was not waited for.)
    fn commit(&mut self) -> ControlFlow<Option<Said>> {
        if self.last_commit.elapsed() < COMMIT_INTERVAL {
            return ControlFlow::Continue(());
        }
        let due = lock(&self.plan.ledger).due();
        if due.is_empty() {
            return ControlFlow::Continue(());
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in &due {
            if let Some(lane) = self.lanes.iter().find(|lane| lane.partition == *partition) {
                let _added = offsets.add_partition_offset(&lane.topic, lane.number, Offset::Offset(*next));
            }
        }
        let committed = self.consumer.commit(&offsets, CommitMode::Sync);
        self.last_commit = Instant::now();
        let mut ledger = lock(&self.plan.ledger);
        for (partition, next) in &due {
            match committed {
                Ok(()) => ledger.confirmed(partition, *next),
                Err(_) => ledger.refused(partition),
            }
        }
        drop(ledger);
        match committed.map_err(|error| (error.rdkafka_error_code(), error.to_string())) {
            Err((Some(code), reason)) => self.complained(Complaint { code, reason }),
            _ => ControlFlow::Continue(()),
        }
    }

    /// Nothing moved: says so, or that a single run is at its end.
    fn rest(&mut self) -> ControlFlow<Option<Said>> {
        let Some(joined) = self.joined else {
            if self.started.elapsed() > OUTSIDE && !self.troubled {
                self.in_trouble(self.outside());
            }
            return ControlFlow::Continue(());
        };
        let quiet = self.pending.is_none() && self.unsaid.is_empty() && self.lanes.iter().all(Lane::is_read);
        if !quiet {
            return ControlFlow::Continue(());
        }
        if self.plan.once && !self.ended && (!self.lanes.is_empty() || joined.elapsed() > ONCE_WAITS) {
            // And stays in the group until what was read is acknowledged.
            self.ended = true;
            self.unsaid.push_back(Ok(Read::End));
            return ControlFlow::Continue(());
        }
        if self.ended || self.last_idle.elapsed() < IDLE_INTERVAL {
            return ControlFlow::Continue(());
        }
        self.last_idle = Instant::now();
        let topic = self.plan.topics.first().map(String::as_str);
        if !self.troubled || self.consumer.fetch_metadata(topic, PATIENCE).is_ok() {
            self.recovered();
        }
        ControlFlow::Continue(())
    }

    fn outside(&self) -> InputError {
        let group = &self.plan.names.group;
        InputError::Transient {
            action: format!("cannot join consumer group {group}"),
            source: format!("the group has let nobody in for {}", humantime::format_duration(OUTSIDE)).into(),
        }
    }
}

/// True if the words of an error name this topic.
fn names(reason: &str, topic: &str) -> bool {
    reason.split([':', ' ', '[', ']']).any(|word| word == topic)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
