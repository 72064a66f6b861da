//! The nodes of a cluster: each takes its turn, and one that fails is left out for a while. Pure but for the clock it is
//! told.
//!
//! | a node | becomes |
//! |---|---|
//! | in turn, fails | left out for 5 s; after each further failure twice as long, up to 2 minutes |
//! | left out, its time is over | tried by one request, left out by the others for 5 s |
//! | tried, answers | in turn |
//!
//! Where all are left out, the one whose time is over first is asked: with a single node, always that one.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use tokio::time::Instant;

use crate::component::BuildError;
use crate::http::base_url;

const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(120);

/// `url`: one address, or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Addresses {
    One(String),
    Several(Vec<String>),
}

impl JsonSchema for Addresses {
    fn schema_name() -> Cow<'static, str> {
        "Addresses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

#[derive(Debug)]
pub(super) struct Nodes {
    urls: Vec<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Whose turn it is.
    next: usize,
    health: Vec<Health>,
}

#[derive(Clone, Debug, Default)]
struct Health {
    failures: u32,
    left_out_until: Option<Instant>,
}

impl Nodes {
    /// Checks the addresses.
    pub(super) fn new(addresses: &Addresses) -> Result<Self, BuildError> {
        let urls = match addresses {
            Addresses::One(url) => vec![base_url("url", url, false)?],
            Addresses::Several(urls) => urls
                .iter()
                .enumerate()
                .map(|(index, url)| base_url(&format!("url[{index}]"), url, false))
                .collect::<Result<_, _>>()?,
        };
        if urls.is_empty() {
            return Err(BuildError::new("url", "names no address; write https://host:port"));
        }
        let health = vec![Health::default(); urls.len()];
        Ok(Self { urls, state: Mutex::new(State { next: 0, health }) })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node that the next request goes to: its number and address.
    pub(super) fn pick(&self, now: Instant) -> (usize, &str) {
        let mut state = self.state();
        let count = self.urls.len();
        let in_turn = (0..count).map(|step| (state.next + step) % count);
        // The first whose time is over, else the one that comes first.
        let due = |index: usize| state.health.get(index).and_then(|health| health.left_out_until);
        let picked = in_turn.min_by_key(|index| due(*index).filter(|until| *until > now)).unwrap_or_default();
        state.next = (picked + 1) % count;
        if let Some(health) = state.health.get_mut(picked)
            && health.left_out_until.is_some()
        {
            health.left_out_until = Some(now + FIRST);
        }
        (picked, self.urls.get(picked).map(String::as_str).unwrap_or_default())
    }

    /// A request to a node had no answer, or one that says that the node is not well.
    pub(super) fn failed(&self, node: usize, now: Instant) {
        if let Some(health) = self.state().health.get_mut(node) {
            let wait = FIRST.saturating_mul(1 << health.failures.min(16)).min(LONGEST);
            health.failures = health.failures.saturating_add(1);
            health.left_out_until = Some(now + wait);
        }
    }

    /// A node answered.
    pub(super) fn works(&self, node: usize) {
        if let Some(health) = self.state().health.get_mut(node) {
            *health = Health::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Nodes {
        let urls = (0..count).map(|number| format!("http://node{number}:9200")).collect();
        Nodes::new(&Addresses::Several(urls)).unwrap()
    }

    fn picks<const N: usize>(nodes: &Nodes, now: Instant) -> [usize; N] {
        std::array::from_fn(|_| nodes.pick(now).0)
    }

    #[test]
    fn each_node_takes_its_turn() {
        let nodes = nodes(3);
        assert_eq!(picks(&nodes, Instant::now()), [0, 1, 2, 0, 1, 2]);
        assert_eq!(nodes.pick(Instant::now()), (0, "http://node0:9200"));
    }

    #[test]
    fn a_node_that_fails_is_left_out_and_then_tried_by_one_request() {
        let (nodes, start) = (nodes(3), Instant::now());
        nodes.failed(1, start);
        assert_eq!(picks(&nodes, start), [0, 2, 0, 2]);
        let over = start + FIRST;
        assert_eq!(picks(&nodes, over), [0, 1, 2, 0, 2]);
        nodes.works(1);
        assert_eq!(picks(&nodes, over), [0, 1, 2]);
    }

    #[test]
    fn a_node_that_goes_on_failing_is_left_out_for_longer() {
        let (nodes, mut now) = (nodes(2), Instant::now());
        for seconds in [5, 10, 20, 40, 80, 120, 120] {
            nodes.failed(1, now);
            let over = now + Duration::from_secs(seconds);
            assert_eq!(picks(&nodes, over - Duration::from_millis(1)), [0, 0, 0], "{seconds} s");
            now = over;
            assert!(picks::<2>(&nodes, now).contains(&1), "{seconds} s");
        }
    }

    #[test]
    fn when_all_fail_the_first_to_be_due_is_asked() {
        let (nodes, start) = (nodes(2), Instant::now());
        nodes.failed(1, start);
        nodes.failed(0, start + Duration::from_secs(1));
        assert_eq!(picks(&nodes, start + Duration::from_secs(2)), [1]);
        let alone = self::nodes(1);
        alone.failed(0, start);
        assert_eq!(picks(&alone, start), [0, 0, 0]);
    }

    #[test]
    fn an_address_that_is_none_is_named_by_its_place() {
        let list = |urls: &[&str]| Addresses::Several(urls.iter().map(|url| (*url).to_owned()).collect());
        let error = Nodes::new(&list(&["https://a", "b:9200"])).unwrap_err().to_string();
        assert!(error.starts_with("url[1]: "), "{error}");
        assert!(Nodes::new(&list(&[])).unwrap_err().to_string().starts_with("url: "));
    }
}
