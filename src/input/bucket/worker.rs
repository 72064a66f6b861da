//! Who reads: several at once, each one object after the other.

use std::sync::Arc;

use object_store::path::Path;
use tokio::sync::{Mutex, mpsc};

use super::hints::Hints;
use super::object::{Found, ObjectError, ObjectReader};
use super::open::Closing;
use super::refusal::{is_archived, refusal};
use crate::input::{InputError, Read};
use crate::time::Millis;

/// Asks for one found object after the other and reads it when it is its turn.
pub(super) struct Worker {
    pub(super) reader: Arc<ObjectReader>,
    pub(super) found: Arc<Mutex<mpsc::Receiver<Found>>>,
    pub(super) hints: Arc<Hints>,
    pub(super) clock: fn() -> Millis,
}

impl Worker {
    pub(super) async fn run(self) {
        loop {
            let next = self.found.lock().await.recv().await;
            let Some(found) = next else { return };
            let (key, partition, version) =
                (found.key.clone(), found.partition(), found.version.name.clone());
            let result = self.reader.read(found, (self.clock)()).await;
            // Before the object counts as closed: a pass that failed at it must not be taken for a complete one.
            match &result {
                Ok(()) | Err(ObjectError::Gone) => self.hints.not_archived(&key),
                Err(ObjectError::Closed) => {}
                Err(ObjectError::Store(error)) if is_archived(error) => {
                    self.hints.archived(key.clone(), &version);
                }
                Err(_) => self.hints.again(key.clone()),
            }
            if self.reader.open.finished(&partition) == Closing::ClosedChanged {
                self.hints.look(key.clone());
            }
            match result {
                Ok(()) | Err(ObjectError::Gone) => {}
                Err(ObjectError::Closed) => return,
                Err(error) => {
                    let trouble = Read::Trouble { partition, error: trouble(&key, error) };
                    if self.reader.reads.send(Ok(trouble)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn trouble(key: &Path, error: ObjectError) -> InputError {
    let action = format!("cannot read object {key}");
    match error {
        ObjectError::Store(error) => refusal(action, &error),
        ObjectError::State(error) => InputError::State(error),
        error => InputError::Transient { action, source: error.to_string().into() },
    }
}
