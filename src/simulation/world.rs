//! What outlives the process: the two ends, the disk, and chance.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Notify;

use super::clock;
use super::ledger::Ledger;
use super::schedule::{Schedule, Step, Trouble};

/// Shared by all that is simulated.
#[derive(Debug)]
pub(super) struct World {
    pub(super) schedule: Schedule,
    rng: Mutex<Rng>,
    ledger: Mutex<Ledger>,
    /// The step at which the process dies, and how many times it still passes it.
    doom: Mutex<Option<(Step, u32)>>,
    deaths: Mutex<Vec<Step>>,
    pub(super) killed: Notify,
    faults: AtomicU64,
}

impl World {
    pub(super) fn new(schedule: Schedule) -> Arc<Self> {
        // Another stream than the one the schedule was drawn from.
        let rng = Mutex::new(Rng::with_seed(schedule.seed ^ 0x5151_5151));
        let (ledger, doom, deaths) = Default::default();
        Arc::new(Self { schedule, rng, ledger, doom, deaths, killed: Notify::new(), faults: 0.into() })
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(super) fn note(&self, what: impl Into<String>) {
        self.ledger().note(what.into());
    }

    /// True in so many of a hundred cases.
    pub(super) fn chance(&self, percent: u32) -> bool {
        self.rng.lock().unwrap().u32(..100) < percent
    }

    pub(super) fn below(&self, end: usize) -> usize {
        self.rng.lock().unwrap().usize(..end.max(1))
    }

    /// Some time passes.
    pub(super) async fn pass(&self, millis: Range<u64>) {
        let millis = self.rng.lock().unwrap().u64(millis);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Whether this kind of trouble strikes now; an outage is never `None`.
    pub(super) fn strikes(&self, trouble: &Trouble) -> bool {
        let strikes = clock::elapsed() < self.schedule.troubled
            && (self.is_out(trouble) || self.chance(trouble.percent));
        self.faults.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }

    /// Nothing works at the moment.
    pub(super) fn is_out(&self, trouble: &Trouble) -> bool {
        let now = clock::elapsed();
        now < self.schedule.troubled
            && trouble.outages.iter().any(|(from, until)| (*from..*until).contains(&now))
    }

    /// The process is to die when it comes to this step so many times.
    pub(super) fn doom(&self, doom: Option<(Step, u32)>) {
        *self.doom.lock().unwrap() = doom;
    }

    /// How often trouble struck.
    pub(super) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// The steps at which it died.
    pub(super) fn deaths(&self) -> Vec<Step> {
        self.deaths.lock().unwrap().clone()
    }

    /// The process has come to a step. If it dies there, this never returns.
    pub(super) async fn step(&self, step: Step) {
        let dies = {
            let mut doom = self.doom.lock().unwrap();
            match &mut *doom {
                Some((at, left)) if *at == step => {
                    *left = left.saturating_sub(1);
                    *left == 0
                }
                _ => false,
            }
        };
        if dies {
            self.note(format!("dies at {step:?}"));
            self.deaths.lock().unwrap().push(step);
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}
