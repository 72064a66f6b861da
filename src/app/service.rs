//! Pipelines at work until a stop: how they end, and how a new configuration takes the place of the old one.

use std::collections::HashSet;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::notify::State;
use super::{App, Notify, Reloaded, now};
use crate::config::{Config, ConfigErrors};
use crate::pipeline::PipelineError;

/// Reads the configuration again, from where it was read at the start.
pub type Reread = Box<dyn Fn() -> Result<Config, ConfigErrors> + Send + Sync>;

type Ended = Result<(Id, Result<(), PipelineError>), JoinError>;

/// The pipelines of a process while it runs.
pub struct Service {
    /// The pipelines.
    pub app: App,
    /// What they were built from.
    config: Config,
    reread: Reread,
    stop: CancellationToken,
    notify: Notify,
    running: JoinSet<Result<(), PipelineError>>,
    errors: Vec<String>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Service({:?})", self.app.routes)
    }
}

impl Service {
    /// Pipelines that were built from a configuration.
    pub fn new(app: App, config: Config, reread: Reread, stop: CancellationToken, notify: Notify) -> Self {
        Self { app, config, reread, stop, notify, running: JoinSet::new(), errors: Vec::new() }
    }

    /// Starts the pipelines, and waits for their end. A call to reload comes by `reloads`; with `--once` it only reopens
    /// files, and a pipeline that gives up does not stop the others. All errors are told.
    ///
    /// # Errors
    /// Those of the pipelines, a line each.
    pub async fn run(&mut self, mut reloads: mpsc::Receiver<()>) -> Result<(), String> {
        self.app.start_new(&self.stop, &mut self.running);
        let stop = self.stop.clone();
        loop {
            // A service without a pipeline waits for its configuration.
            let waits = self.app.routes.is_empty() && !self.app.common.once && !stop.is_cancelled();
            if self.running.is_empty() && !waits {
                break;
            }
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                Some(()) = reloads.recv(), if !stop.is_cancelled() => self.reload().await,
                () = stop.cancelled(), if self.running.is_empty() => {}
            }
        }
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors.join("\n")) }
    }

    fn ended(&mut self, ended: Ended) {
        let id = id_of(&ended);
        for route in self.app.routes.iter_mut().filter(|route| route.task == Some(id)) {
            route.task = None;
        }
        match ended {
            Ok((_, Ok(()))) => return,
            // The rest is read again at the next start: an orderly stop of a service all the same.
            Ok((_, Err(error @ PipelineError::Unfinished { .. }))) if !self.app.common.once => {
                tracing::warn!("{error}");
                return;
            }
            Ok((_, Err(error))) => self.errors.push(error.to_string()),
            Err(error) => {
                self.errors.push(format!("a pipeline failed: {error}; this is a defect, please report it"));
            }
        }
        if !self.app.common.once && !self.stop.is_cancelled() {
            self.notify.stopping(self.config.shutdown_grace.0);
            self.stop.cancel();
        }
    }

    /// Takes the configuration as it is now, or refuses it as a whole.
    async fn reload(&mut self) {
        tracing::info!("reopening output files");
        self.app.reopen().await;
        if self.app.common.once {
            return;
        }
        self.notify.tell(&[State::Reloading, State::MoreTime(self.config.shutdown_grace.0)]);
        let refused = self.take_configuration().await.err().map(|why| why.to_string());
        self.app.metrics.reload(refused.is_none());
        if let Some(why) = &refused {
            for line in why.lines() {
                tracing::error!("the new configuration is refused, the old one goes on: {line}");
            }
        }
        self.app.view.send_modify(|view| view.reloaded = Some(Reloaded { at: now(), refused }));
        self.notify.tell(&[State::Ready, State::Status(&self.app.view.borrow().summary())]);
    }

    async fn take_configuration(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let new = (self.reread)()?;
        self.config.can_become(&new)?;
        let plan = self.app.plan(&self.config, &new)?;
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let (before, starting) = (self.app.routes.len(), plan.starting());
        let ending = self.app.end_others(&plan);
        let ended = ending.len();
        self.wait_for(ending).await;
        self.app.carry_out(plan, &new);
        self.config = new;
        self.app.start_new(&self.stop, &mut self.running);
        tracing::info!(
            pipelines = self.app.routes.len(),
            started = starting,
            ended,
            untouched = before - ended,
            "the new configuration is in force"
        );
        Ok(())
    }

    /// Waits until these pipelines have delivered what they had under way, or their grace period is over.
    async fn wait_for(&mut self, ending: Vec<Id>) {
        let mut ending: HashSet<Id> = ending.into_iter().collect();
        while !ending.is_empty() {
            let Some(ended) = self.running.join_next_with_id().await else { return };
            ending.remove(&id_of(&ended));
            self.ended(ended);
        }
    }
}

fn id_of(ended: &Ended) -> Id {
    match ended {
        Ok((id, _)) => *id,
        Err(error) => error.id(),
    }
}
