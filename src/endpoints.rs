//! The addresses of one collector: one, or several servers that are as good as each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::component::BuildError;
use crate::http::base_url;

/// How long a server that failed is left out at first, and at most; the time doubles with each failure.
const LEFT_OUT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// So many answers of 503 in a row are a burst.
const BURST: u32 = 3;

/// `url` of an output with one or several servers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Addresses {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// Servers in turn; those that failed are left out for a while.
#[derive(Debug)]
pub struct Endpoints {
    servers: Vec<Endpoint>,
    next: AtomicUsize,
}

/// One server.
#[derive(Debug)]
pub struct Endpoint {
    url: String,
    health: Mutex<Health>,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    out_until: Option<Instant>,
    busy: u32,
}

impl Endpoints {
    /// Checks the addresses.
    ///
    /// # Errors
    /// [`BuildError`] of `key`.
    pub fn new(key: &str, addresses: &Addresses) -> Result<Self, BuildError> {
        let addresses = match addresses {
            Addresses::One(address) => std::slice::from_ref(address),
            Addresses::Several(addresses) => addresses,
        };
        if addresses.is_empty() {
            return Err(BuildError::new(key, "is an empty list; write at least one address"));
        }
        let server =
            |address: &String| Ok(Endpoint { url: base_url(key, address, false)?, health: Mutex::default() });
        Ok(Self {
            servers: addresses.iter().map(server).collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// All of them.
    pub fn all(&self) -> &[Endpoint] {
        &self.servers
    }

    /// The next server in turn that is not left out; where all are, the one that comes back first.
    pub fn pick(&self) -> Option<&Endpoint> {
        let now = Instant::now();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let (before, after) = self.servers.split_at(turn % self.servers.len().max(1));
        let left_out = |server: &&Endpoint| server.health().out_until.filter(|until| *until > now);
        after.iter().chain(before).min_by_key(left_out)
    }
}

impl Endpoint {
    /// Its address, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It did not answer, or answered that it cannot.
    pub fn failed(&self) {
        let mut health = self.health();
        let (first, longest) = LEFT_OUT;
        let wait = first.saturating_mul(1 << health.failures.min(16)).min(longest);
        health.failures = health.failures.saturating_add(1);
        health.out_until = Some(Instant::now() + wait);
    }

    /// It answered with 503: a failure, and one more of a burst.
    pub fn busy(&self) {
        self.failed();
        let mut health = self.health();
        health.busy = health.busy.saturating_add(1);
    }

    /// It answered otherwise.
    pub fn works(&self) {
        *self.health() = Health::default();
    }

    /// True after a burst of 503: to be asked for its health before it gets events.
    pub fn is_swamped(&self) -> bool {
        self.health().busy >= BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: usize) -> Endpoints {
        let addresses = (0..count).map(|number| format!("http://s{number}:8088/")).collect();
        Endpoints::new("url", &Addresses::Several(addresses)).unwrap()
    }

    fn picks(endpoints: &Endpoints, count: usize) -> Vec<&str> {
        (0..count).filter_map(|_| endpoints.pick()?.url().strip_prefix("http://")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn servers_take_turns_and_one_that_fails_is_left_out_for_a_while() {
        let endpoints = endpoints(3);
        assert_eq!(picks(&endpoints, 4), ["s0:8088", "s1:8088", "s2:8088", "s0:8088"]);
        endpoints.all()[1].failed();
        assert!(!picks(&endpoints, 6).contains(&"s1:8088"));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(picks(&endpoints, 3).contains(&"s1:8088"), "it gets another try");
        endpoints.all()[1].failed();
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(!picks(&endpoints, 3).contains(&"s1:8088"), "and waits longer if that fails");
        endpoints.all()[1].works();
        assert!(picks(&endpoints, 3).contains(&"s1:8088"));
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_failed_the_one_that_comes_back_first_is_tried() {
        let endpoints = endpoints(2);
        endpoints.all()[1].failed();
        tokio::time::advance(Duration::from_secs(1)).await;
        endpoints.all()[0].failed();
        assert_eq!(picks(&endpoints, 3), ["s1:8088"; 3]);
    }

    #[test]
    fn a_list_without_an_address_and_a_wrong_address_name_the_key() {
        for addresses in [vec![], vec!["https://a".to_owned(), "b:8088".to_owned()]] {
            let error = Endpoints::new("url", &Addresses::Several(addresses)).unwrap_err().to_string();
            assert!(error.starts_with("url: "), "{error}");
        }
    }

    #[tokio::test]
    async fn three_answers_of_503_in_a_row_are_a_burst() {
        let endpoints = endpoints(1);
        let server = &endpoints.all()[0];
        (0..2).for_each(|_| server.busy());
        assert!(!server.is_swamped());
        server.busy();
        assert!(server.is_swamped());
        server.works();
        assert!(!server.is_swamped());
    }
}
