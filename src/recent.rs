//! The events that a pipeline encoded last, for the page: who did what, in columns that hold no free text.
//!
//! Parameters, commands and error messages stay out, redacted or not: whoever may see the page need not see those.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::event::AuditEvent;
use crate::json::Text;
use crate::time::Millis;

/// Most characters of a column that are kept.
const MAX_CHARACTERS: usize = 128;

/// What is shown of an event; columns are null where the event's are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecentEvent {
    /// When it happened, RFC 3339.
    pub event_time: Option<String>,
    /// Where.
    pub workspace_id: Option<String>,
    /// For instance `unityCatalog`.
    pub service_name: Option<String>,
    /// For instance `getTable`.
    pub action_name: Option<String>,
    /// Who.
    pub email: Option<String>,
    /// How it ended.
    pub status_code: Option<i64>,
    /// Its id, to look for it at the collector.
    pub event_id: Option<String>,
}

/// The last few events of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct RecentEvents {
    capacity: usize,
    kept: Arc<Mutex<VecDeque<RecentEvent>>>,
}

impl RecentEvents {
    /// Keeps so many; 0 keeps none and costs nothing.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, kept: Arc::default() }
    }

    /// How many are kept: earlier events of a chunk that has more need not be noted.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Keeps an event, in place of the oldest.
    pub fn note(&self, event: &AuditEvent<'_>) {
        if self.capacity == 0 {
            return;
        }
        let shown = RecentEvent {
            event_time: event.event_time.map(rfc3339),
            workspace_id: event.workspace_id.as_ref().map(shortened),
            service_name: event.service_name.as_ref().map(shortened),
            action_name: event.action_name.as_ref().map(shortened),
            email: event.user_identity.value().and_then(|user| user.email.as_ref()).map(shortened),
            status_code: event.response.value().and_then(|response| response.status_code),
            event_id: event.event_id.as_ref().map(shortened),
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == self.capacity {
            kept.pop_front();
        }
        kept.push_back(shown);
    }

    /// The kept ones, newest first.
    pub fn list(&self) -> Vec<RecentEvent> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().cloned().collect()
    }
}

fn rfc3339(time: Millis) -> String {
    let mut text = Vec::with_capacity(24);
    time.write_rfc3339(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn shortened(text: &Text<'_>) -> String {
    let plain = text.plain();
    match plain.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", plain.get(..end).unwrap_or_default()),
        None => plain.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Identity, Nested, Params};

    fn event(service: &str) -> AuditEvent<'static> {
        AuditEvent {
            event_time: Millis::new(1_767_609_296_123),
            service_name: Some(Text::from_plain(service)),
            user_identity: Nested::Value(Identity {
                email: Some(Text::from_plain("dana@example.com")),
                subject_name: None,
            }),
            request_params: Nested::Value(Params(r#"{"commandText":"hidden"}"#.into())),
            ..AuditEvent::default()
        }
    }

    #[test]
    fn the_last_few_are_kept_newest_first_and_without_their_parameters() {
        let recent = RecentEvents::new(2);
        for service in ["a", "b", "c"] {
            recent.note(&event(service));
        }
        let listed = recent.list();
        let services: Vec<_> = listed.iter().map(|event| event.service_name.as_deref()).collect();
        assert_eq!(services, [Some("c"), Some("b")]);
        let text = serde_json::to_string(&listed).unwrap();
        assert!(text.contains("2026-01-05T10:34:56.123Z") && text.contains("dana@example.com"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }

    #[test]
    fn none_are_kept_where_none_are_wanted() {
        let recent = RecentEvents::default();
        recent.note(&event("a"));
        assert!(recent.list().is_empty());
    }

    #[test]
    fn a_long_column_is_cut() {
        let recent = RecentEvents::new(1);
        recent.note(&event(&"ö".repeat(1000)));
        let shown = recent.list().remove(0).service_name.unwrap();
        assert_eq!(shown.chars().count(), MAX_CHARACTERS + 1);
    }
}
