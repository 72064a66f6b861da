//! Puts the parts together: from a checked configuration to running pipelines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::HOLD_INTERVAL;
use crate::budget::Budget;
use crate::config::{self, Config, ConfigError};
use crate::dead_letter::DeadLetterError;
use crate::dead_letter::file::FileDeadLetters;
use crate::input::{Input, InputContext, Resume, Shared};
use crate::metrics::{Metrics, PipelineMetrics};
use crate::output::Output;
use crate::overlap::Overlaps;
use crate::pipeline::{BatchLimits, Pace, Pipeline, PipelineError};
use crate::recent::RecentEvents;
use crate::registry;
use crate::state::sqlite::SqliteState;
use crate::state::{State, StateError};
use crate::status::{Phase, Status};
use crate::time::{Date, Millis};

mod notify;
pub(crate) mod redaction;
mod reload;
mod service;
mod view;

pub use notify::Notify;
use redaction::Key;
pub use service::{Reread, Service};
pub use view::{Reloaded, ShownRoute, View};

/// Why auditferry cannot start, or did not end well. Each is one sentence for whoever started it.
#[derive(Debug, Error)]
pub enum AppError {
    /// A component's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The dead letters.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    /// The key of the marks that stand for secrets.
    #[error(
        "cannot keep the key of redaction in {path}: {source}; make its directory writable for this user, or set redaction.key"
    )]
    RedactionKey {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The metrics are declared wrongly.
    #[error("cannot register the metrics: {0}; this is a defect, please report it")]
    Metrics(#[from] prometheus::Error),
    /// A pipeline gave up.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

/// One pipeline and the views on it that outlive its run.
pub struct Route {
    /// Name of its input.
    pub input_name: String,
    /// Name of its output.
    pub output_name: String,
    /// Its counters.
    pub metrics: PipelineMetrics,
    /// What it does.
    pub status: Status,
    /// The events it encoded last.
    pub recent: RecentEvents,
    /// Its input: tells its backlog.
    pub input: Arc<dyn Input>,
    /// Its output: told to reopen its files.
    pub output: Arc<dyn Output>,
    /// The pipeline, until it runs.
    pipeline: Option<Pipeline>,
    /// Ends it alone.
    stop: CancellationToken,
    /// Its task, once it runs.
    task: Option<tokio::task::Id>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Route({}/{})", self.input_name, self.output_name)
    }
}

/// All pipelines of a process.
#[derive(Debug)]
pub struct App {
    /// The pipelines, in the order of the configuration.
    pub routes: Vec<Route>,
    /// All counters.
    pub metrics: Metrics,
    /// Where state and dead letters are kept.
    pub state_dir: PathBuf,
    /// What others see of it, the server above all.
    view: watch::Sender<View>,
    common: Common,
}

/// What pipelines have in common, also with those that a reload adds.
struct Common {
    state: Arc<dyn State>,
    shared: Shared,
    overlaps: Overlaps,
    /// One collector, one pace, however many pipelines send to it.
    paces: BTreeMap<String, Arc<Pace>>,
    once: bool,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Common").field("paces", &self.paces.keys()).finish_non_exhaustive()
    }
}

impl App {
    /// Builds all pipelines on one state. Touches no network.
    ///
    /// # Errors
    /// [`AppError`] naming the key or the file.
    pub fn build(config: &Config, once: bool) -> Result<Self, AppError> {
        let common = Common {
            state: Arc::new(SqliteState::open(&config.state_dir)?),
            shared: Shared::default(),
            overlaps: Overlaps::default(),
            paces: BTreeMap::new(),
            once,
        };
        let view = watch::Sender::new(View::default());
        let state_dir = config.state_dir.clone();
        let mut app = Self { routes: Vec::new(), metrics: Metrics::new()?, state_dir, view, common };
        for pipeline in &config.pipelines {
            let route = app.route(config, pipeline)?;
            app.routes.push(route);
        }
        app.show(config);
        Ok(app)
    }

    /// Builds one pipeline.
    fn route(&mut self, config: &Config, route: &config::Pipeline) -> Result<Route, AppError> {
        let name = format!("{}/{}", route.input, route.output);
        let budget = Budget::new(config.memory.get());
        let Common { state, shared, overlaps, paces, once } = &mut self.common;
        let context = InputContext {
            name: route.input.clone(),
            resume: Resume::new(Arc::clone(state), &name),
            budget: budget.clone(),
            once: *once,
            until: None,
            shared: shared.clone(),
            base: PathBuf::new(),
            clock: now,
        };
        let input: Arc<dyn Input> = config.build_input(&route.input, context)?.into();
        let source = Source { name: &name, input, budget, state: Arc::clone(state), once: *once };
        let metrics = self.metrics.pipeline(&route.input, &route.output);
        let mut pipeline = pipeline(config, &route.output, source, &config.state_dir, metrics)?;
        pipeline.pace = Arc::clone(paces.entry(route.output.clone()).or_insert(pipeline.pace));
        if config.outputs.get(&route.output).is_some_and(|output| output.common.count_overlap) {
            pipeline.overlap = Some(overlaps.of(&route.input, &route.output));
        }
        Ok(Route {
            input_name: route.input.clone(),
            output_name: route.output.clone(),
            metrics: pipeline.metrics.clone(),
            status: pipeline.status.clone(),
            recent: pipeline.recent.clone(),
            input: Arc::clone(&pipeline.input),
            output: Arc::clone(&pipeline.output),
            pipeline: Some(pipeline),
            stop: CancellationToken::new(),
            task: None,
        })
    }

    /// Tries what a collector holds up at this interval instead of [`HOLD_INTERVAL`].
    pub fn retry_holds_every(&mut self, interval: Duration) {
        for pipeline in self.routes.iter_mut().filter_map(|route| route.pipeline.as_mut()) {
            pipeline.hold_interval = interval;
        }
    }

    /// Starts all pipelines; each ends by itself (`--once`) or at the stop.
    pub fn start(&mut self, stop: &CancellationToken) -> JoinSet<Result<(), PipelineError>> {
        let mut running = JoinSet::new();
        self.start_new(stop, &mut running);
        running
    }

    /// Starts those that do not run yet.
    fn start_new(&mut self, stop: &CancellationToken, running: &mut JoinSet<Result<(), PipelineError>>) {
        for route in &mut self.routes {
            if let Some(pipeline) = route.pipeline.take() {
                route.stop = stop.child_token();
                // From now on, not from when its task first gets its turn: who asks in between is told that it runs.
                route.status.enter(Phase::Running);
                route.task = Some(running.spawn(pipeline.run(route.stop.clone())).id());
            }
        }
    }

    /// What others see of it, now and after each change.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Shows the pipelines there are now.
    fn show(&self, config: &Config) {
        let shown = |route: &Route| ShownRoute {
            input: route.input_name.clone(),
            output: route.output_name.clone(),
            metrics: route.metrics.clone(),
            status: route.status.clone(),
            recent: route.recent.clone(),
        };
        let routes = self.routes.iter().map(shown).collect();
        let idle = config.is_empty().then(|| config.warnings.first().cloned()).flatten();
        self.view.send_modify(|view| {
            view.routes = routes;
            view.idle = idle;
        });
    }
}

/// The reading end of a pipeline.
pub(crate) struct Source<'a> {
    pub(crate) name: &'a str,
    pub(crate) input: Arc<dyn Input>,
    pub(crate) budget: Budget,
    pub(crate) state: Arc<dyn State>,
    pub(crate) once: bool,
}

/// A pipeline from a source to one of the configured outputs.
pub(crate) fn pipeline(
    config: &Config,
    output_name: &str,
    source: Source<'_>,
    state_dir: &Path,
    metrics: PipelineMetrics,
) -> Result<Pipeline, AppError> {
    let output: Arc<dyn Output> = config.build_output(output_name)?.into();
    let Some(settings) = config.outputs.get(output_name) else {
        return Err(AppError::Config(config.no_such_output(output_name)));
    };
    let common = &settings.common;
    Ok(Pipeline {
        name: source.name.into(),
        input: source.input,
        decoder: redaction::decoder(config, source.name, output_name, Key::Kept(state_dir))?.into(),
        format: registry::format(common.format, common.format_options).into(),
        output,
        limits: BatchLimits {
            max_bytes: common.batch.max_bytes.get(),
            max_events: common.batch.max_events,
            max_age: common.batch.max_age.0,
        },
        encoding: common.compression,
        in_flight: common.in_flight,
        pace: Arc::new(Pace::new(fastrand::u64(..), common.in_flight)),
        hold_after_refusals: common.hold_after_refusals,
        budget: source.budget,
        state: source.state,
        dead_letters: Arc::new(FileDeadLetters::open(state_dir, source.name)?),
        metrics,
        status: Status::default(),
        once: source.once,
        grace: config.shutdown_grace.0,
        hold_interval: HOLD_INTERVAL,
        overlap: None,
        recent: RecentEvents::new(config.server.recent_events),
        clock: now,
    })
}

/// The time of day.
pub(crate) fn now() -> Millis {
    Millis::new(jiff::Timestamp::now().as_millisecond()).unwrap_or(Date::EPOCH.start())
}

#[cfg(test)]
mod tests;
