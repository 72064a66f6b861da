//! Events that more than one input has: one audit trail read by two routes, whose ids differ.
//!
//! What the routes have in common is coarse, so it counts and deletes nothing: two real events of one second can agree
//! in all of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::Xxh3;

use crate::event::AuditEvent;

/// Events after which a half of what is remembered is forgotten. The newest so many are known, in about 10 MB.
const GENERATION: usize = 250_000;
/// Inputs told apart; further ones are not counted.
const MOST_INPUTS: u32 = 64;

/// What was sent to one output, by which inputs.
#[derive(Debug, Default)]
struct Sent {
    /// Inputs, one bit each, by what an event has in common with itself by another route.
    current: HashMap<u64, u64>,
    previous: HashMap<u64, u64>,
    /// The inputs by the number of their bit.
    inputs: Vec<String>,
}

/// One input's view on what was sent to an output.
#[derive(Clone, Debug)]
pub struct Overlap {
    sent: Arc<Mutex<Sent>>,
    bit: u64,
}

/// The outputs whose overlaps are counted.
#[derive(Debug, Default)]
pub struct Overlaps(HashMap<String, Arc<Mutex<Sent>>>);

impl Overlaps {
    /// The view of a pipeline.
    pub fn of(&mut self, input: &str, output: &str) -> Overlap {
        let shared = Arc::clone(self.0.entry(output.to_owned()).or_default());
        let mut sent = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let number = sent.inputs.iter().position(|known| known == input).unwrap_or_else(|| {
            sent.inputs.push(input.to_owned());
            sent.inputs.len() - 1
        });
        drop(sent);
        let bit =
            u32::try_from(number).ok().filter(|number| *number < MOST_INPUTS).map_or(0, |number| 1 << number);
        Overlap { sent: shared, bit }
    }
}

impl Overlap {
    /// Notes an event; true if another input has sent one like it.
    pub fn note(&self, event: &AuditEvent<'_>) -> bool {
        let Some(common) = common(event) else { return false };
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = sent.previous.get(&common).copied().unwrap_or_default();
        let here = sent.current.entry(common).or_default();
        let others = (before | *here) & !self.bit;
        *here |= self.bit;
        if sent.current.len() >= GENERATION {
            sent.previous = std::mem::take(&mut sent.current);
        }
        self.bit != 0 && others != 0
    }
}

/// What all routes tell of an event: workspace, second, service, action, request and status. Nothing of one that has no
/// time or no request: too many would be alike.
fn common(event: &AuditEvent<'_>) -> Option<u64> {
    let second = event.event_time?.get().div_euclid(1000);
    let request = event.request_id.as_ref().filter(|request| !request.is_empty())?;
    let mut hash = Xxh3::new();
    hash.update(&second.to_le_bytes());
    let status = event.response.value().and_then(|response| response.status_code);
    hash.update(&status.unwrap_or(i64::MIN).to_le_bytes());
    for text in
        [&event.workspace_id, &event.service_name, &event.action_name].into_iter().flatten().chain([request])
    {
        // The quotes keep two texts from running into one.
        hash.update(text.quoted().as_bytes());
    }
    Some(hash.digest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Text;
    use crate::time::Millis;

    fn event(request: &str, millis: i64) -> AuditEvent<'static> {
        AuditEvent {
            event_time: Millis::new(millis),
            request_id: Some(Text::from_plain(request)),
            workspace_id: Some(Text::from_plain("7")),
            ..AuditEvent::default()
        }
    }

    #[test]
    fn an_event_that_another_input_sent_to_the_same_output_is_told() {
        let mut overlaps = Overlaps::default();
        let (bucket, table) = (overlaps.of("bucket", "splunk"), overlaps.of("table", "splunk"));
        let elsewhere = overlaps.of("table", "archive");
        assert!(!bucket.note(&event("a", 1_000)));
        assert!(!bucket.note(&event("a", 1_000)), "a repeat within an input is none of it");
        assert!(!elsewhere.note(&event("a", 1_000)));
        assert!(table.note(&event("a", 1_999)), "routes differ in what follows the second");
        assert!(!table.note(&event("a", 2_000)));
        assert!(!table.note(&event("b", 1_000)));
        assert!(overlaps.of("bucket", "splunk").note(&event("b", 1_000)), "whichever comes first");
    }

    #[test]
    fn an_event_without_a_request_or_a_time_is_not_compared() {
        let mut overlaps = Overlaps::default();
        let (one, other) = (overlaps.of("one", "out"), overlaps.of("other", "out"));
        for event in [event("", 1), AuditEvent { event_time: None, ..event("a", 1) }] {
            assert!(!one.note(&event) && !other.note(&event));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_keeps_the_newest() {
        let mut overlaps = Overlaps::default();
        let (one, other) = (overlaps.of("one", "out"), overlaps.of("other", "out"));
        for number in 0..3 * GENERATION as i64 {
            one.note(&event("a", number * 1000));
        }
        let sent = one.sent.lock().unwrap();
        assert!(sent.current.len() + sent.previous.len() <= 2 * GENERATION);
        drop(sent);
        assert!(other.note(&event("a", (3 * GENERATION as i64 - 1) * 1000)));
        assert!(!other.note(&event("a", 0)), "the oldest are forgotten");
    }
}
