//! The input: starts a member of the group, passes its chunks on, and starts another where one had to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinSet;

use super::Flavour;
use super::beginning::Beginning;
use super::config::{Checked, Start};
use super::connect::properties;
use super::group::Group;
use super::ledger::Ledger;
use super::member::{self, Plan, Said};
use super::probe;
use super::refusal::Names;
use crate::chunk::{Partition, Position};
use crate::component::Probe;
use crate::input::{Backlog, Input, InputContext, InputError, Read};
use crate::kafka::Login;

/// Chunks between the member and the engine.
const CHUNKS_WAITING: usize = 2;

/// An input of Event Hubs or Kafka at work.
pub(super) struct Kafka {
    checked: Checked,
    context: InputContext,
    /// The consumer group. A pipeline has one of its own: two of them in one group would get half of the records each.
    group: String,
    cloud: Option<&'static str>,
    ledger: Arc<Mutex<Ledger>>,
    running: AsyncMutex<Option<Running>>,
    stop: Arc<AtomicBool>,
}

/// A member of the group.
struct Running {
    reads: mpsc::Receiver<Said>,
    thread: JoinSet<()>,
}

impl Running {
    /// Waits until the member has left the group.
    async fn end(mut self) {
        self.reads.close();
        while let Some(ended) = self.thread.join_next().await {
            if let Err(failed) = ended
                && failed.is_panic()
            {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
    }
}

impl Kafka {
    pub(super) fn new(checked: Checked, context: InputContext, flavour: Flavour) -> Self {
        let group = format!("{}.{}", checked.config.group, context.resume.pipeline().replace('/', "."));
        let cloud = (flavour == Flavour::EventHubs).then_some("azure");
        Self {
            checked,
            context,
            group,
            cloud,
            ledger: Arc::default(),
            running: AsyncMutex::default(),
            stop: Arc::default(),
        }
    }

    async fn start(&self) -> Result<Running, InputError> {
        let Checked { config, servers, login } = &self.checked;
        let (reads_in, reads) = mpsc::channel(CHUNKS_WAITING);
        let plan = Plan {
            client: properties(&self.checked, &self.group)?,
            topics: config.topics.clone(),
            names: Names::new(servers, &self.group, login),
            ledger: Arc::clone(&self.ledger),
            budget: self.context.budget.clone(),
            max_message_bytes: config.max_message_bytes.get(),
            cloud: self.cloud,
            once: self.context.once,
            reads: reads_in,
            stop: Arc::clone(&self.stop),
        };
        let beginning = match config.start {
            Start::Earliest => None,
            Start::Latest => Some(Beginning::read(&self.group, &config.topics, &self.context.resume).await?),
        };
        let group = self.group(beginning);
        let mut thread = JoinSet::new();
        thread.spawn_blocking(move || member::run(plan, group));
        Ok(Running { reads, thread })
    }

    fn group(&self, beginning: Option<Beginning>) -> Group {
        let Checked { login, .. } = &self.checked;
        let token = if let Login::Azure(token) = login { Some(Arc::clone(token)) } else { None };
        Group::new(Arc::clone(&self.ledger), beginning, token, Handle::current())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Input for Kafka {
    async fn read(&self) -> Result<Read, InputError> {
        let mut running = self.running.lock().await;
        loop {
            let member = match &mut *running {
                Some(member) => member,
                None => running.insert(self.start().await?),
            };
            if let Some(said) = member.reads.recv().await {
                return said;
            }
            // It has said its last word: the next one begins anew, with the secrets as they are by then.
            if let Some(member) = running.take() {
                member.end().await;
            }
        }
    }

    async fn committed(&self, partition: &Partition, position: &Position) {
        // Only this input spells its positions.
        if let Ok(next) = position.as_str().parse() {
            self.ledger().settled(partition, next);
        }
    }

    async fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(member) = self.running.lock().await.take() {
            member.end().await;
        }
    }

    async fn probe(&self) -> Probe {
        let Checked { config, servers, login } = &self.checked;
        let client = match properties(&self.checked, &self.group) {
            Ok(client) => client,
            Err(error) => return Probe::Failed(error.to_string()),
        };
        let (names, topics, group) =
            (Names::new(servers, &self.group, login), config.topics.clone(), self.group(None));
        let asked = tokio::task::spawn_blocking(move || probe::run(&client, &topics, &names, group)).await;
        asked.unwrap_or_else(|stopped| Probe::Failed(format!("cannot ask: {stopped}")))
    }

    fn backlog(&self) -> Backlog {
        Backlog { open: self.ledger().owned() as u64, ..Backlog::default() }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
