//! Proof by simulation: the bucket input, the engine and their state between a faulty store and a faulty collector, in
//! time that passes as fast as the tests can make it, killed and started again; then both ends are compared.
//!
//! ```text
//!   Schedule::draw(seed) ──► lives: [killed | killed at a step | stopped] … ──► quiet: everything works ──► once more
//!                                 FaultyStore ─► Bucket ─► Pipeline ─► SimulatedCollector
//!                                                   └─ Disk ─┘             Ledger: who has what
//! ```
//!
//! What must hold of each schedule:
//!
//! 1. Every line that was ever written is delivered, or a dead letter where no collector takes it, as often as it was
//!    written; and nothing else.
//! 2. No committed position counts a line that is not settled.
//! 3. A collector that appends gets an event again only after an answer that left it open, or after a process was killed;
//!    what one killed process can be blamed for fits into `memory`. One that knows ids has each once, whatever it was sent.
//! 4. When all is done, a run with `--once` sends nothing.
//!
//! One thread, one seed: a schedule goes the same way each time, but for what tokio leaves to chance among tasks that are
//! ready at the same moment. A seed that fails is printed with the command that runs it again.
//!
//! | variable | |
//! |---|---|
//! | `AUDITFERRY_SIMULATION_SCHEDULES` | how many schedules, instead of a few thousand |
//! | `AUDITFERRY_SIMULATION_SEED` | only this one, and its whole journal |

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::backoff::HOLD_INTERVAL;
use crate::budget::Budget;
use crate::compress::Encoding;
use crate::decode::audit::AuditDecoder;
use crate::format::FormatName;
use crate::input::{InputContext, Resume, Shared, bucket};
use crate::metrics::Metrics;
use crate::pipeline::{BatchLimits, Pace, Pipeline, PipelineError};
use crate::recent::RecentEvents;
use crate::registry::{self, FormatOptions};
use crate::state::State;
use crate::status::Status;

mod clock;
mod collector;
mod disk;
mod ledger;
mod schedule;
mod store;
mod world;

use collector::SimulatedCollector;
use disk::Disk;
use schedule::{End, Schedule, Step};
use store::FaultyStore;
use world::World;

const NAME: &str = "simulation/collector";
/// Schedules of a run without a word from the environment.
const SCHEDULES: u64 = 2000;
/// How long everything may take after the last trouble: closed dates are looked at daily.
const PATIENCE: Duration = Duration::from_secs(9 * 86_400);
/// Time between two polls when there is nothing left but to wait.
const SLOW_POLL: Duration = Duration::from_secs(3600);

/// Everything that is simulated.
struct Simulation {
    world: Arc<World>,
    store: Arc<FaultyStore>,
    collector: Arc<SimulatedCollector>,
    disk: Arc<Disk>,
    metrics: Metrics,
    /// How many of the schedule's writes are done.
    written: Cell<usize>,
}

/// What to wait for in a life.
#[derive(Clone, Copy, Debug)]
enum Until {
    End(End),
    /// Everything has arrived, or it has taken too long.
    Complete {
        poll: Duration,
        patience: Duration,
    },
    /// All that is there has been read (`--once`).
    Over,
}

impl Simulation {
    fn new(schedule: Schedule) -> Self {
        clock::reset(schedule.jumps.clone());
        // The waits of the engine are drawn from it.
        fastrand::seed(schedule.seed);
        let world = World::new(schedule);
        Self {
            store: FaultyStore::new(Arc::clone(&world)),
            collector: SimulatedCollector::new(Arc::clone(&world)),
            disk: Disk::new(Arc::clone(&world)),
            metrics: Metrics::new().unwrap(),
            written: Cell::new(0),
            world,
        }
    }

    fn pipeline(&self, poll: Duration, grace: Duration, once: bool) -> Pipeline {
        let schedule = &self.world.schedule;
        let budget = Budget::new(schedule.memory);
        let state = Arc::clone(&self.disk) as Arc<dyn State>;
        let context = InputContext {
            name: "simulation".to_owned(),
            resume: Resume::new(Arc::clone(&state), NAME),
            budget: budget.clone(),
            once,
            until: None,
            shared: Shared::default(),
            base: PathBuf::new(),
            clock: clock::now,
        };
        let settings = serde_json::json!({
            "url": "s3://simulation/logs",
            "poll_interval": format!("{}s", poll.as_secs()),
            "open_dates": schedule.open_dates,
            "concurrency": schedule.concurrency,
            "verify_whole_below": schedule.verify_whole_below,
            "verify_on_close": schedule.verify_on_close,
        });
        Pipeline {
            name: NAME.into(),
            input: bucket::over(Arc::clone(&self.store) as _, settings, context, schedule.chunk_bytes),
            decoder: Arc::new(AuditDecoder::default()),
            format: registry::format(FormatName::Canonical, FormatOptions::default()).into(),
            output: Arc::clone(&self.collector) as _,
            limits: BatchLimits {
                max_bytes: schedule.batch_bytes,
                max_events: 50,
                max_age: Duration::from_millis(200),
            },
            encoding: Encoding::None,
            in_flight: schedule.in_flight,
            pace: Arc::new(Pace::new(fastrand::u64(..), schedule.in_flight)),
            hold_after_refusals: 100,
            budget,
            state,
            dead_letters: Arc::clone(&self.disk) as _,
            metrics: self.metrics.pipeline("simulation", "collector"),
            status: Status::default(),
            once,
            grace,
            hold_interval: HOLD_INTERVAL,
            overlap: None,
            recent: RecentEvents::default(),
            clock: clock::now,
        }
    }

    /// One life of the process, from its start to its end; what is written meanwhile is written.
    fn live(&self, until: Until) {
        runtime().block_on(async {
            clock::begin();
            self.world.ledger().begin_life();
            let (poll, grace) = match until {
                Until::End(End::Stopped(_, grace)) => (self.world.schedule.poll, grace),
                Until::Complete { poll, .. } => (poll, Duration::from_secs(3600)),
                _ => (self.world.schedule.poll, Duration::from_secs(60)),
            };
            let once = matches!(until, Until::Over | Until::End(End::Once));
            let pipeline = self.pipeline(poll, grace, once);
            let stop = CancellationToken::new();
            let mut run = std::pin::pin!(pipeline.run(stop.clone()));
            let ended = tokio::select! {
                biased;
                () = self.write() => None,
                ended = &mut run => Some(ended),
                () = self.end(until, &stop) => None,
            };
            // Killed, unless it was told to stop: then it has its grace.
            let ended = match ended {
                None if stop.is_cancelled() => Some(run.await),
                ended => ended,
            };
            self.conclude(until, stop.is_cancelled(), ended);
            clock::end();
        });
        // With the runtime went all tasks, wherever they were.
        self.world.doom(None);
    }

    /// Writes what is due, and never returns.
    async fn write(&self) {
        while let Some(write) = self.world.schedule.writes.get(self.written.get()) {
            clock::until(write.at).await;
            self.store.put(write);
            self.written.set(self.written.get() + 1);
        }
        std::future::pending::<()>().await;
    }

    /// Waits for the end of a life; tells it to stop where it is not to be killed.
    async fn end(&self, until: Until, stop: &CancellationToken) {
        match until {
            Until::Over | Until::End(End::Once) => std::future::pending().await,
            Until::End(End::Killed(after)) => tokio::time::sleep(after).await,
            Until::End(End::KilledAt(step, times)) => {
                self.world.doom(Some((step, times)));
                let _in_time =
                    tokio::time::timeout(self.world.schedule.troubled, self.world.killed.notified()).await;
            }
            Until::End(End::Stopped(after, _)) => {
                tokio::time::sleep(after).await;
                stop.cancel();
            }
            Until::Complete { poll, patience } => {
                let began = clock::elapsed();
                while clock::elapsed() < self.world.schedule.troubled
                    || self.is_incomplete() && clock::elapsed() < began + patience
                {
                    tokio::time::sleep(poll).await;
                }
                // What is sent too often would come now.
                tokio::time::sleep(3 * poll).await;
                stop.cancel();
            }
        }
    }

    /// True until everything is where it belongs, and committed: what is not would be sent again.
    fn is_incomplete(&self) -> bool {
        let schedule = &self.world.schedule;
        self.written.get() < schedule.writes.len()
            || self.store.versions().iter().any(|(key, etag)| !self.disk.has_all_of(key, etag))
            || !self.world.ledger().is_complete(schedule)
    }

    fn conclude(&self, until: Until, stopped: bool, ended: Option<Result<(), PipelineError>>) {
        let mut ledger = self.world.ledger();
        ledger.note(format!("the life ends: {ended:?}"));
        match (until, ended) {
            (Until::End(_), None) => ledger.killed(),
            (Until::Over | Until::End(End::Once), Some(Ok(()))) => ledger.ended_in_order(),
            // It gives up where a service would wait.
            (
                Until::End(End::Once),
                Some(Err(PipelineError::Input { .. } | PipelineError::Collector { .. })),
            ) => {
                ledger.gave_up();
            }
            (_, Some(Ok(()))) if stopped => ledger.ended_in_order(),
            // The grace was over, or what had failed once could not be said to have gone well.
            (Until::End(_), Some(Err(PipelineError::Unfinished { .. }))) if stopped => ledger.killed(),
            (_, ended) => ledger.violation(format!("a life ended as it should not: {ended:?}")),
        }
    }

    /// All lives, then time without trouble, then once more.
    fn run(&self) {
        for end in &self.world.schedule.lives {
            self.live(Until::End(*end));
        }
        let poll = self.world.schedule.poll;
        self.live(Until::Complete { poll, patience: Duration::from_secs(900) });
        if self.is_incomplete() {
            self.live(Until::Complete { poll: SLOW_POLL, patience: PATIENCE });
        }
        let arrivals = self.world.ledger().arrivals();
        self.live(Until::Over);
        let mut ledger = self.world.ledger();
        if ledger.arrivals() != arrivals {
            ledger.violation("a run at rest sent something".to_owned());
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// What a number of simulations came to.
#[derive(Debug, Default)]
struct Tally {
    schedules: u64,
    lives: usize,
    kills: usize,
    faults: u64,
    arrivals: usize,
    repeats: usize,
    /// How often a process died at each step.
    deaths: BTreeMap<Step, u32>,
    failures: BTreeMap<u64, String>,
}

impl Tally {
    fn add(&mut self, simulation: &Simulation) {
        let (ledger, schedule) = (simulation.world.ledger(), &simulation.world.schedule);
        self.schedules += 1;
        self.lives += ledger.lives();
        self.kills += ledger.kills();
        self.faults += simulation.world.faults();
        self.arrivals += ledger.arrivals();
        self.repeats += ledger.repeats();
        for step in simulation.world.deaths() {
            *self.deaths.entry(step).or_default() += 1;
        }
        if let Some(wrong) = ledger.verdict(schedule) {
            self.failures.insert(schedule.seed, wrong);
        }
    }
}

fn simulate(seed: u64) -> Simulation {
    let simulation = Simulation::new(Schedule::draw(seed));
    simulation.run();
    simulation
}

/// Runs the seeds on all cores; stops early when something fails.
fn simulate_all(seeds: std::ops::Range<u64>) -> Tally {
    let (next, tally) = (AtomicU64::new(seeds.start), Mutex::new(Tally::default()));
    let cores = crate::cores::cores();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !tally.lock().unwrap().failures.is_empty() {
                        return;
                    }
                    // A panic would not say of which seed.
                    match std::panic::catch_unwind(|| simulate(seed)) {
                        Ok(simulation) => tally.lock().unwrap().add(&simulation),
                        Err(_) => {
                            tally.lock().unwrap().failures.insert(seed, "panicked; see above".to_owned());
                        }
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_without_a_cause_whatever_goes_wrong() {
    if let Some(seed) = variable("AUDITFERRY_SIMULATION_SEED") {
        let simulation = simulate(seed);
        let ledger = simulation.world.ledger();
        println!("{:#?}\n{}", simulation.world.schedule.settings(), ledger.journal().join("\n"));
        assert_eq!(ledger.verdict(&simulation.world.schedule), None);
        return;
    }
    let schedules = variable("AUDITFERRY_SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let tally = simulate_all(0..schedules);
    if let Some((seed, wrong)) = tally.failures.first_key_value() {
        panic!("AUDITFERRY_SIMULATION_SEED={seed} cargo test --lib simulation:: -- --nocapture\n{wrong}");
    }
    println!("{tally:?}");
    // It would prove nothing if nothing had gone wrong.
    if schedules >= SCHEDULES {
        assert!(tally.kills > 1000 && tally.repeats > 1000, "{tally:?}");
        assert_eq!(tally.deaths.len(), Step::ALL.len(), "{tally:?}");
    }
}

#[test]
fn a_schedule_goes_the_same_way_each_time() {
    let mut different = Vec::new();
    for seed in 0..40 {
        let [first, second] = [simulate(seed), simulate(seed)];
        let [first, second] = [first.world.ledger().digest(), second.world.ledger().digest()];
        if first != second {
            different.push(seed);
        }
    }
    assert!(different.is_empty(), "{different:?}");
}
