//! The addresses of one collector: one, or several servers that are as good as each other, such as the nodes of a cluster.
//!
//! | a server | becomes |
//! |---|---|
//! | in turn, fails | left out for 5 s; after each further failure twice as long, up to 2 minutes. Requests that were under way together fail together: that is one failure |
//! | left out, its time is over | tried by one request, left out by the others for 5 s |
//! | tried, answers | in turn |
//!
//! Where all are left out, the one whose time is over first is asked: with a single server, always that one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::component::BuildError;
use crate::http::base_url;

/// How long a server that failed is left out at first, and at most; the time doubles with each failure.
const LEFT_OUT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));
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
    /// When the last failure that counted came.
    failed_at: Option<Instant>,
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
        let server = |(index, address): (usize, &String)| {
            let key = if addresses.len() > 1 { format!("{key}[{index}]") } else { key.to_owned() };
            Ok(Endpoint { url: base_url(&key, address, false)?, health: Mutex::default() })
        };
        Ok(Self {
            servers: addresses.iter().enumerate().map(server).collect::<Result<_, _>>()?,
            next: AtomicUsize::new(0),
        })
    }

    /// All of them.
    pub fn all(&self) -> &[Endpoint] {
        &self.servers
    }

    /// The server that the next request goes to.
    pub fn pick(&self) -> Option<&Endpoint> {
        let now = Instant::now();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let (before, after) = self.servers.split_at(turn % self.servers.len().max(1));
        let left_out = |server: &&Endpoint| server.health().out_until.filter(|until| *until > now);
        let picked = after.iter().chain(before).min_by_key(left_out)?;
        let mut health = picked.health();
        if health.out_until.is_some() {
            health.out_until = Some(now + LEFT_OUT.0);
        }
        drop(health);
        Some(picked)
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

    /// It did not answer a request that began then, or answered that it cannot.
    pub fn failed(&self, began: Instant) {
        let mut health = self.health();
        if health.failed_at.is_some_and(|failed_at| began <= failed_at) {
            return;
        }
        health.failed_at = Some(Instant::now());
        let (first, longest) = LEFT_OUT;
        let wait = first.saturating_mul(1 << health.failures.min(16)).min(longest);
        health.failures = health.failures.saturating_add(1);
        health.out_until = Some(Instant::now() + wait);
    }

    /// It answered with 503: a failure, and one more of a burst.
    pub fn busy(&self, began: Instant) {
        self.failed(began);
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

    fn picks<const N: usize>(endpoints: &Endpoints) -> [&str; N] {
        std::array::from_fn(|_| endpoints.pick().unwrap().url())
    }

    #[tokio::test(start_paused = true)]
    async fn servers_take_turns_and_one_that_fails_is_left_out_and_then_tried_by_one_request() {
        let endpoints = endpoints(3);
        let [first, second, third] = ["http://s0:8088", "http://s1:8088", "http://s2:8088"];
        assert_eq!(picks(&endpoints), [first, second, third]);
        endpoints.all()[1].failed(Instant::now());
        assert!(!picks::<6>(&endpoints).contains(&second));
        tokio::time::advance(LEFT_OUT.0).await;
        let tries = picks::<6>(&endpoints).iter().filter(|url| **url == second).count();
        assert_eq!(tries, 1, "whether it is back is found out by one request");
        endpoints.all()[1].works();
        assert_eq!(picks::<6>(&endpoints).iter().filter(|url| **url == second).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_goes_on_failing_is_left_out_for_longer() {
        let endpoints = endpoints(2);
        for seconds in [5, 10, 20, 40, 80, 120, 120] {
            endpoints.all()[1].failed(Instant::now());
            tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
            assert_eq!(picks(&endpoints), ["http://s0:8088"; 3], "{seconds} s");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(picks::<2>(&endpoints).contains(&"http://s1:8088"), "{seconds} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_fail_together_leave_a_server_out_as_long_as_one_does() {
        let endpoints = endpoints(2);
        let server = &endpoints.all()[1];
        let began = Instant::now();
        for _ in 0..6 {
            tokio::time::advance(Duration::from_millis(100)).await;
            server.failed(began);
        }
        tokio::time::advance(LEFT_OUT.0).await;
        assert!(picks::<2>(&endpoints).contains(&server.url()), "its five seconds are over");
        // The one that tried it began after the failure.
        server.failed(Instant::now());
        tokio::time::advance(LEFT_OUT.0).await;
        assert!(!picks::<2>(&endpoints).contains(&server.url()));
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_failed_the_one_that_comes_back_first_is_tried() {
        let endpoints = endpoints(2);
        endpoints.all()[1].failed(Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        endpoints.all()[0].failed(Instant::now());
        assert_eq!(picks(&endpoints), ["http://s1:8088"]);
        let alone = self::endpoints(1);
        alone.all()[0].failed(Instant::now());
        assert_eq!(picks(&alone), ["http://s0:8088"; 3]);
    }

    #[test]
    fn a_wrong_address_is_named_by_its_place_and_a_list_without_one_by_its_key() {
        let error = |addresses: Addresses| Endpoints::new("url", &addresses).unwrap_err().to_string();
        let list = |urls: &[&str]| Addresses::Several(urls.iter().map(|url| (*url).to_owned()).collect());
        assert!(error(list(&["https://a", "b:8088"])).starts_with("url[1]: "));
        assert!(error(list(&[])).starts_with("url: "));
        assert!(error(Addresses::One("b:8088".to_owned())).starts_with("url: "));
    }

    #[tokio::test]
    async fn three_answers_of_503_in_a_row_are_a_burst() {
        let endpoints = endpoints(1);
        let server = &endpoints.all()[0];
        (0..2).for_each(|_| server.busy(Instant::now()));
        assert!(!server.is_swamped());
        server.busy(Instant::now());
        assert!(server.is_swamped());
        server.works();
        assert!(!server.is_swamped());
    }
}
