//! Channels: what Splunk numbers acknowledgements by.
//!
//! Numbers count from 0 per channel *and* per indexer, and an indexer that is asked for a number it did not give says
//! "not yet", as it does after it said "safe" once. Behind a balancer two requests of one channel may thus get the same
//! number from two indexers, and the promise of one be taken for that of the other: events lost. So a channel carries one
//! request at a time, until that is acknowledged:
//!
//! | after | the channel |
//! |---|---|
//! | acknowledged, or accepted without a number | is used again |
//! | refused, no answer, no acknowledgement in time | is never used again: a number may be left on it |
//!
//! Whoever answers a poll, sticky balancer or not, can only mean that one request. There are as many channels as
//! requests waiting for an acknowledgement. One channel for all with a check for repeated numbers was rejected: it
//! notices the second request, when the first may have been settled by mistake.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Free channels that are kept; more are given up to the server's own clean-up.
const MOST_FREE: usize = 1000;

/// A channel, and the cookies by which a balancer finds its indexer again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    /// Address of the server.
    pub(super) endpoint: String,
    /// Its UUID. After a restart there are new ones: nobody knows what was left on the old.
    pub(super) id: String,
    /// As a `Cookie` header gives them back.
    pub(super) cookies: String,
}

impl Channel {
    /// Takes over cookies that an answer set.
    pub(super) fn remember(&mut self, set: &str) {
        let pairs = |text: &str| -> BTreeMap<String, String> {
            let pair =
                |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            text.split("; ").filter_map(pair).collect()
        };
        if set.is_empty() {
            return;
        }
        let mut cookies = pairs(&self.cookies);
        cookies.extend(pairs(set));
        let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.cookies = pairs.join("; ");
    }
}

/// The channels that carry nothing just now.
#[derive(Debug, Default)]
pub(super) struct Channels(Mutex<Vec<Channel>>);

impl Channels {
    fn free(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A channel to a server that carries nothing.
    pub(super) fn take(&self, endpoint: &str) -> Channel {
        let mut free = self.free();
        match free.iter().rposition(|channel| channel.endpoint == endpoint) {
            Some(index) => free.swap_remove(index),
            None => Channel { endpoint: endpoint.to_owned(), id: new_id(), cookies: String::new() },
        }
    }

    /// Nothing is left on this channel.
    pub(super) fn give_back(&self, channel: Channel) {
        let mut free = self.free();
        if free.len() < MOST_FREE {
            free.push(channel);
        }
    }
}

/// A random UUID.
pub(super) fn new_id() -> String {
    let random = fastrand::u128(..);
    let versioned = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{versioned:032x}");
    [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default()).join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_a_new_random_uuid_each_time() {
        let id = new_id();
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
        assert_ne!(id, new_id());
    }

    #[test]
    fn a_channel_is_not_given_twice_before_it_is_given_back_and_stays_with_its_server() {
        let channels = Channels::default();
        let (first, second) = (channels.take("a"), channels.take("a"));
        assert_ne!(first.id, second.id);
        channels.give_back(first.clone());
        assert_ne!(channels.take("b").id, first.id);
        assert_eq!(channels.take("a"), first);
    }

    #[test]
    fn a_cookie_is_replaced_by_its_name_and_kept_where_an_answer_sets_none() {
        let mut channel = Channels::default().take("a");
        channel.remember("AWSALB=1; indexer=x");
        channel.remember("");
        channel.remember("AWSALB=2");
        assert_eq!(channel.cookies, "AWSALB=2; indexer=x");
    }
}
