//! A collector that takes, refuses, forgets to answer, answers late, in part, or with nonsense.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::clock;
use super::schedule::Step;
use super::world::World;
use crate::batch::{Framing, Request};
use crate::event::AuditEvent;
use crate::format::Format;
use crate::output::{AckId, HoldReason, Output, Rejection, Verdict};

/// An event of a request: its id, its record's request id and length.
#[derive(Clone, Debug)]
struct Event {
    id: String,
    request: String,
    bytes: usize,
}

impl Event {
    fn is_poison(&self) -> bool {
        self.request.ends_with("-poison")
    }
}

/// What it promised to tell.
#[derive(Debug)]
struct Promise {
    events: Vec<Event>,
    /// Never, if it forgot.
    kept_at: Option<Duration>,
}

/// The collector; outlives the processes that send to it.
#[derive(Debug)]
pub(super) struct SimulatedCollector {
    world: Arc<World>,
    promises: Mutex<HashMap<u64, Promise>>,
}

impl SimulatedCollector {
    pub(super) fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, promises: Mutex::default() })
    }

    /// Keeps events; gives the indexes of those it had.
    fn keep(&self, events: &[Event], ambiguous: bool) -> Vec<usize> {
        let keyed = self.world.schedule.keyed;
        let mut ledger = self.world.ledger();
        let mut duplicate = Vec::new();
        for (index, event) in events.iter().enumerate() {
            if !ledger.arrive(keyed, &event.id, &event.request, event.bytes, ambiguous) {
                duplicate.push(index);
            }
        }
        duplicate
    }

    fn settle<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        let mut ledger = self.world.ledger();
        for event in events {
            ledger.settle(&event.id, &event.request);
        }
    }

    /// Trouble of some kind. Nothing of it is a clear yes.
    async fn trouble(&self, events: &[Event]) -> Verdict {
        let ambiguous =
            |cause: &str| Verdict::Retry { cause: cause.to_owned(), after: None, ambiguous: true };
        match self.world.below(9) {
            0 | 1 => Verdict::retry("503", [None, Some(Duration::from_secs(3))][self.world.below(2)]),
            2 => Verdict::hold(HoldReason::Credentials, "401"),
            3 => ambiguous("connection refused by a proxy that may have passed it on"),
            4 => {
                self.keep(events, true);
                ambiguous("accepted, then the connection was lost")
            }
            5 => {
                // Poison is refused by whoever gets to it, so that none is ever kept.
                self.keep(events, true);
                self.world.pass(5_000..90_000).await;
                ambiguous("the answer is garbage, and late")
            }
            6 => {
                let count = self.world.below(events.len() + 1);
                self.keep(&events[..count], true);
                Verdict::TooSlow { cause: "408".to_owned() }
            }
            _ => self.partial(events, true),
        }
    }

    /// Event by event.
    fn partial(&self, events: &[Event], busy: bool) -> Verdict {
        let (mut retry, mut rejected, mut taken, mut at) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, event) in events.iter().enumerate() {
            if event.is_poison() {
                rejected.push((index, Rejection { reason: "poison".to_owned() }));
            } else if busy && self.world.chance(40) {
                retry.push(index);
            } else {
                taken.push(event.clone());
                at.push(index);
            }
        }
        let known = self.keep(&taken, false);
        let duplicate = match self.world.schedule.keyed {
            true => known.into_iter().map(|index| at[index]).collect(),
            false => Vec::new(),
        };
        self.settle(&taken);
        Verdict::Partial { duplicate, retry, rejected, after: None, ambiguous: false }
    }

    /// Reads up to the event it refuses. What comes before that is in and not safe, and need not stay: it promises nothing.
    fn prefix(&self, events: &[Event]) -> Verdict {
        let at = events.iter().position(Event::is_poison).unwrap();
        if self.world.chance(50) {
            self.keep(&events[..at], true);
        }
        let retry = (0..at).chain(at + 1..events.len()).collect();
        let rejected = vec![(at, Rejection { reason: "poison".to_owned() })];
        Verdict::Partial { duplicate: Vec::new(), retry, rejected, after: None, ambiguous: at > 0 }
    }

    fn promise(&self, events: &[Event]) -> Verdict {
        let forgets = self.world.strikes(&self.world.schedule.collector);
        let kept_at =
            (!forgets).then(|| clock::elapsed() + Duration::from_millis(self.world.below(20_000) as u64));
        if !forgets || self.world.chance(50) {
            self.keep(events, true);
        }
        let mut promises = self.promises.lock().unwrap();
        let number = promises.len() as u64;
        promises.insert(number, Promise { events: events.to_vec(), kept_at });
        let [endpoint, channel, cookies] = ["simulation", "c", ""].map(str::to_owned);
        Verdict::PendingAck { ack: AckId { endpoint, channel, cookies, number }, slow_down: false }
    }

    async fn answer(&self, events: &[Event], bytes: usize) -> Verdict {
        let world = &self.world;
        let trouble = &world.schedule.collector;
        world.pass(1..120).await;
        if world.is_out(trouble) {
            return Verdict::retry("connection refused", None);
        }
        if bytes > world.schedule.limit {
            return Verdict::TooLarge;
        }
        let poison = events.iter().any(Event::is_poison);
        if poison && world.schedule.keyed {
            return self.partial(events, false);
        }
        if poison && world.schedule.promises {
            return self.prefix(events);
        }
        if poison {
            return Verdict::rejected("one of them is poison");
        }
        if world.strikes(trouble) {
            return self.trouble(events).await;
        }
        if world.schedule.promises {
            return self.promise(events);
        }
        if world.schedule.keyed {
            return self.partial(events, false);
        }
        self.keep(events, false);
        self.settle(events);
        match world.below(10) {
            0 => Verdict::AcceptedWithRemark("deprecated".to_owned()),
            1 => Verdict::Accepted { slow_down: true },
            _ => Verdict::Accepted { slow_down: false },
        }
    }
}

/// The events of a body.
fn events(request: &Request) -> Vec<Event> {
    let text = std::str::from_utf8(&request.body).unwrap();
    let event = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let mut next = || words.next().unwrap();
        Event { id: next(), request: next(), bytes: next().parse().unwrap() }
    };
    text.lines().map(event).collect()
}

#[async_trait]
impl Output for SimulatedCollector {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    fn encode(&self, event: &AuditEvent<'_>, _format: &dyn Format, frame: &mut Vec<u8>) {
        let id = event.event_id.as_ref().unwrap().plain();
        let request = event.request_id.as_ref().unwrap().plain();
        frame.extend_from_slice(format!("{id} {request} {}", event.raw.len()).as_bytes());
    }

    async fn send(&self, request: &Request) -> Verdict {
        let events = events(request);
        self.world.pass(0..40).await;
        let verdict = self.answer(&events, request.uncompressed_bytes).await;
        let ids: Vec<&str> = events.iter().map(|event| event.request.as_str()).collect();
        self.world.note(format!("{} for {}", verdict.label(), ids.join(" ")));
        self.world.step(Step::Sent).await;
        if self.world.strikes(&self.world.schedule.collector) && self.world.chance(10) {
            // Late, and good all the same.
            self.world.pass(1_000..25_000).await;
        }
        self.world.pass(0..40).await;
        self.world.step(Step::Answered).await;
        verdict
    }

    async fn acknowledged(&self, pending: &[AckId]) -> Vec<AckId> {
        self.world.pass(1..40).await;
        let now = clock::elapsed();
        let promises = self.promises.lock().unwrap();
        let is_kept = |promise: &Promise| promise.kept_at.is_some_and(|at| at <= now);
        let mut told = Vec::new();
        for ack in pending {
            if let Some(promise) = promises.get(&ack.number).filter(|promise| is_kept(promise)) {
                self.settle(&promise.events);
                told.push(ack.clone());
            }
        }
        told
    }

    fn ack_timeout(&self) -> Duration {
        Duration::from_secs(60)
    }
}
