//! What a test tells a collector to answer.

use std::time::Duration;

/// One answer of a script.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) keep: usize,
    pub(super) delay: Duration,
    pub(super) fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    None,
    /// None at all: the protocol's own answer.
    Usual,
    HangUp,
    Garbage,
    HalfAnswer,
}

impl Step {
    /// This status and body; the events are not kept.
    pub(crate) fn answer(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            headers: Vec::new(),
            keep: 0,
            delay: Duration::ZERO,
            fault: Fault::None,
        }
    }

    /// What the protocol answers without a script.
    pub(crate) fn usual() -> Self {
        Self { fault: Fault::Usual, ..Self::answer(200, "") }
    }

    /// Closes the connection without an answer.
    pub(crate) fn hang_up() -> Self {
        Self { fault: Fault::HangUp, ..Self::answer(200, "") }
    }

    /// Answers with something that is not HTTP.
    pub(crate) fn garbage() -> Self {
        Self { fault: Fault::Garbage, ..Self::answer(200, "") }
    }

    /// Announces more body than it sends, then closes the connection.
    pub(crate) fn half_answer(body: impl Into<String>) -> Self {
        Self::answer(200, body).broken_off()
    }

    /// Announces more body than it sends, then closes the connection.
    pub(crate) fn broken_off(self) -> Self {
        Self { fault: Fault::HalfAnswer, ..self }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before it answers; what it keeps, it keeps at once.
    pub(crate) fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Keeps the events all the same: they have arrived, whatever the answer says.
    pub(crate) fn keeping(self) -> Self {
        self.keeping_first(usize::MAX)
    }

    /// Keeps the first events all the same.
    pub(crate) fn keeping_first(mut self, count: usize) -> Self {
        self.keep = count;
        self
    }
}

/// What `_bulk` says of one document.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(super) status: u16,
    pub(super) kind: String,
    pub(super) reason: String,
}

impl Item {
    pub(crate) fn new(status: u16, kind: &str, reason: &str) -> Self {
        Self { status, kind: kind.to_owned(), reason: reason.to_owned() }
    }

    /// A status with the error that usually comes with it.
    pub(crate) fn of(status: u16) -> Self {
        let kind = match status {
            409 => "version_conflict_engine_exception",
            429 => "es_rejected_execution_exception",
            _ => "document_parsing_exception",
        };
        Self::new(status, kind, "refused")
    }
}
