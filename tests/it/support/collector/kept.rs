//! What a collector keeps, and what it answers without a script.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Value, json};

use super::request::Received;
use super::script::{Item, Step};
use super::{Protocol, apis};

/// An event that arrived: as the collector's users see it, and what it was wrapped in.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) document: Value,
    pub(super) envelope: Value,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) script: VecDeque<Step>,
    pub(super) script_everything: bool,
    pub(super) down: Option<u16>,
    /// A header and its value that requests must have.
    pub(super) wanted: Option<(String, String)>,
    pub(super) most_bytes: Option<usize>,
    pub(super) poison: Option<String>,
    pub(super) items: VecDeque<Vec<Item>>,
    pub(super) acknowledging: Option<bool>,
    pub(super) sticky: bool,
    pub(super) withholding: bool,
    /// By channel: the numbers it gave, in order.
    pub(super) acks: HashMap<String, Vec<Promise>>,
    pub(super) given_tokens: usize,
    pub(super) received: Vec<Received>,
    pub(super) events: Vec<Event>,
    /// For each of them, the request.
    pub(super) brought_by: Vec<usize>,
    pub(super) ids: HashSet<String>,
}

/// HEC: the events of a request, and whether a poll was told that they are safe.
#[derive(Debug)]
pub(super) struct Promise {
    pub(super) ids: Vec<String>,
    pub(super) told: bool,
}

impl State {
    /// Keeps an event; false if its id is there already and the protocol knows ids.
    pub(super) fn keep(&mut self, event: Event) -> bool {
        let is_new = self.ids.insert(event.id.clone());
        // Loki's entries are arrays.
        let knows_ids = event.envelope.get("create").is_some() || event.envelope.is_array();
        if is_new || !knows_ids {
            self.events.push(event);
            self.brought_by.push(self.received.len() - 1);
        }
        is_new
    }

    pub(super) fn keep_all(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.keep(event);
        }
    }

    pub(super) fn is_poison(&self, event: &Event) -> bool {
        self.poison.as_ref().is_some_and(|text| event.document.to_string().contains(text))
    }

    /// Like Loki: keeps what is good, and speaks of what is not.
    pub(super) fn answer_loki(&mut self, events: Vec<Event>) -> Step {
        let total = events.len();
        let (bad, good): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| self.is_poison(event));
        self.keep_all(good);
        if bad.is_empty() { apis::success(Protocol::Loki) } else { apis::ignored(bad.len(), total) }
    }

    /// Like Splunk: keeps what comes before the first bad event, and nothing from it on.
    pub(super) fn answer_hec(&mut self, request: &Received, events: Vec<Event>) -> Step {
        let ids = events.iter().map(|event| event.id.clone()).collect();
        for (number, event) in events.into_iter().enumerate() {
            if self.is_poison(&event) {
                let refusal =
                    json!({"text": "Invalid data format", "code": 6, "invalid-event-number": number});
                return Step::answer(400, refusal.to_string());
            }
            self.keep(event);
        }
        if self.acknowledging.is_none() {
            return Step::answer(200, json!({"text": "Success", "code": 0}).to_string());
        }
        let channel = request.header("x-splunk-request-channel").unwrap_or_default().to_owned();
        let promises = self.acks.entry(channel).or_default();
        let number = promises.len();
        promises.push(Promise { ids, told: false });
        let step = Step::answer(200, json!({"text": "Success", "code": 0, "ackId": number}).to_string());
        // As a load balancer does it: only with this cookie a poll finds the indexer that knows the number.
        if self.sticky { step.header("set-cookie", "indexer=1; Path=/; HttpOnly") } else { step }
    }

    /// Like Splunk: says that a request is safe once, and of what it does not know that it is not.
    pub(super) fn answer_poll(&mut self, request: &Received) -> Step {
        let at_home = !self.sticky || request.header("cookie") == Some("indexer=1");
        let acknowledges = at_home && self.acknowledging == Some(true);
        let channel = request.header("x-splunk-request-channel").unwrap_or_default();
        let mut promises = self.acks.get_mut(channel);
        let asked: Value = serde_json::from_str(&request.body).unwrap();
        let mut acks = serde_json::Map::new();
        for number in asked["acks"].as_array().unwrap() {
            let index = usize::try_from(number.as_u64().unwrap()).unwrap();
            let promise = promises.as_mut().and_then(|promises| promises.get_mut(index));
            let safe =
                promise.is_some_and(|promise| acknowledges && !std::mem::replace(&mut promise.told, true));
            acks.insert(number.to_string(), json!(safe));
        }
        Step::answer(200, json!({ "acks": acks }).to_string())
    }

    pub(super) fn answer_bulk(&mut self, events: Vec<Event>) -> Step {
        let mut errors = false;
        let mut items = Vec::new();
        let forced = self.items.pop_front().unwrap_or_default();
        for (index, event) in events.into_iter().enumerate() {
            let failure = match forced.get(index).filter(|item| item.status >= 300) {
                Some(item) => {
                    // It is there already, as after a request whose answer was lost.
                    if item.status == 409 {
                        self.keep(event);
                    }
                    Some(item.clone())
                }
                None if self.is_poison(&event) => Some(Item::of(400)),
                None => (!self.keep(event)).then(|| Item::of(409)),
            };
            errors |= failure.is_some();
            items.push(match failure {
                Some(Item { status, kind, reason }) => {
                    json!({"create": {"status": status, "error": {"type": kind, "reason": reason}}})
                }
                None => json!({"create": {"status": 201}}),
            });
        }
        Step::answer(200, json!({"errors": errors, "items": items}).to_string())
    }
}

/// The events of a body.
pub(super) fn events(protocol: Protocol, request: &Received) -> Vec<Event> {
    if !matches!(protocol, Protocol::Hec | Protocol::Bulk | Protocol::Sumo | Protocol::Any) {
        return apis::events(protocol, request);
    }
    let values: Vec<Value> = serde_json::Deserializer::from_str(&request.body)
        .into_iter::<Value>()
        .map(|value| value.unwrap_or_else(|error| panic!("{error} in {}", request.body)))
        .collect();
    let id = |value: &Value| value["event_id"].as_str().unwrap_or_default().to_owned();
    match protocol {
        Protocol::Hec => values
            .into_iter()
            .map(|envelope| Event {
                id: id(&envelope["event"]),
                document: envelope["event"].clone(),
                envelope,
            })
            .collect(),
        Protocol::Bulk => values
            .chunks(2)
            .map(|pair| Event {
                id: pair[0]["create"]["_id"].as_str().unwrap_or_default().to_owned(),
                document: pair[1].clone(),
                envelope: pair[0].clone(),
            })
            .collect(),
        _ => values
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(values) => values,
                value => vec![value],
            })
            .map(|value| Event { id: id(&value), document: value.clone(), envelope: value })
            .collect(),
    }
}
