//! The output: gives the events of a request to the session, and waits for a report on each.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};

use super::Plan;
use super::record::{self, Record};
use super::session::{MOST_BYTES, Report, Session, Ticket};
use super::verdict::{self, Failure, ends_the_session};
use crate::batch::{Framing, Request};
use crate::component::Probe;
use crate::event::AuditEvent;
use crate::format::Format;
use crate::output::{Output, Rejection, Verdict};

/// Time between two looks at a session whose reports are waited for.
const LOOK: Duration = Duration::from_secs(1);

/// Kafka.
pub(super) struct Kafka {
    plan: Arc<Plan>,
    session: Mutex<Option<Arc<Session>>>,
}

impl Kafka {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan: Arc::new(plan), session: Mutex::default() }
    }

    /// The session, begun if there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>, Verdict> {
        let mut current = self.session.lock().await;
        if let Some(session) = &*current {
            return Ok(Arc::clone(session));
        }
        let (session, _) = begin(&self.plan).await?;
        Ok(Arc::clone(current.insert(Arc::new(session))))
    }

    /// Gives a session up, for the next request to begin another. Requests that wait for its reports go on doing so.
    async fn give_up(&self, session: &Arc<Session>) {
        let mut current = self.session.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            let given_up = current.take();
            drop(current);
            end(given_up).await;
        }
    }
}

/// Begins a session off the runtime's threads.
async fn begin(plan: &Arc<Plan>) -> Result<(Session, String), Verdict> {
    let (plan, runtime) = (Arc::clone(plan), Handle::current());
    let begun = tokio::task::spawn_blocking(move || Session::begin(&plan, runtime)).await;
    begun.unwrap_or_else(|stopped| Err(Verdict::retry(format!("cannot start: {stopped}"), None)))
}

/// Ends a session that nobody else holds: the client takes its time to close.
async fn end(session: Option<Arc<Session>>) {
    if let Some(last) = session.and_then(Arc::into_inner) {
        let _ended = tokio::task::spawn_blocking(move || drop(last)).await;
    }
}

/// The events of the request that are not in.
async fn deliver(session: &Session, plan: &Plan, request: &Request) -> Vec<Failure> {
    let (tickets, mut reports) = mpsc::channel(request.events.max(1));
    // What no report comes of, which the client owes us, counts as lost on the way.
    let mut failed = vec![Some(Code::Unknown); request.events];
    let records = || record::read(&request.body, plan.headers.len());
    for (index, (record, failed)) in records().zip(&mut failed).enumerate() {
        let topic = plan.topic.fixed().unwrap_or(record.topic);
        if let Err(code) = session.put(topic, &record, plan, Ticket { index, reports: tickets.clone() }) {
            *failed = Some(code);
        }
    }
    drop(tickets);
    loop {
        let report = tokio::select! {
            report = reports.recv() => report,
            () = tokio::time::sleep(LOOK) => {
                session.purge_if_refused();
                continue;
            }
        };
        let Some(Report { index, failed: code }) = report else { break };
        if let Some(failed) = failed.get_mut(index) {
            *failed = code;
        }
    }
    let failures = records().zip(&failed).enumerate().filter_map(|(index, (record, failed))| {
        let topic = plan.topic.fixed().unwrap_or(record.topic).to_owned();
        failed.map(|code| Failure { index, code, bytes: bytes_of(&record), topic })
    });
    failures.collect()
}

fn bytes_of(record: &Record<'_>) -> usize {
    let headers: usize = record.headers.iter().map(|header| header.len()).sum();
    record.key.len() + headers + record.document.len()
}

#[async_trait]
impl Output for Kafka {
    fn framing(&self) -> Framing {
        Framing::CONCATENATED
    }

    fn encode(&self, event: &AuditEvent<'_>, format: &dyn Format, frame: &mut Vec<u8>) {
        record::write(&self.plan, event, format, frame);
    }

    fn fits(&self, frame: &[u8]) -> Result<(), Rejection> {
        // The client counts some bytes of its own.
        if frame.len() < MOST_BYTES - 1024 {
            return Ok(());
        }
        let reason = format!("no broker takes a message of {} bytes", frame.len());
        Err(Rejection { reason })
    }

    async fn send(&self, request: &Request) -> Verdict {
        let session = match self.session().await {
            Ok(session) => session,
            Err(verdict) => return verdict,
        };
        let failures = deliver(&session, &self.plan, request).await;
        if session.is_over() || failures.iter().any(|failure| ends_the_session(failure.code)) {
            self.give_up(&session).await;
        }
        end(Some(session)).await;
        verdict::of(failures, request.events, &self.plan)
    }

    async fn probe(&self) -> Probe {
        match begin(&self.plan).await {
            Ok((session, seen)) => {
                end(Some(Arc::new(session))).await;
                Probe::Ready(format!("{seen}; whether it may be written to, only events show"))
            }
            Err(verdict) => verdict.into_probe(""),
        }
    }
}

#[cfg(test)]
mod tests;
