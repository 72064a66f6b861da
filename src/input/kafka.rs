//! Topics of Azure Event Hubs, over its Kafka endpoint, or of any Kafka.
//!
//! ```text
//!                      ┌ group: partitions come and go ┐
//!   brokers ◄─────────►│ Member (a thread of its own)  │──► chunks ──► Kafka::read
//!                      └ commits offsets ◄── Ledger ◄──┴──── settled ── Kafka::committed
//! ```
//!
//! **Where to resume is the broker's to say**, not the state's: it hands out the group's committed offset together with
//! the partition. The position that the engine keeps in the state besides is never read. Several instances share a
//! group, so the state of one says nothing of how far another has come; and it would overrule an operator who resets
//! the group, or skip messages of a topic that was deleted and made anew. Offsets are committed in the order of safety:
//! collector, state, [`Input::committed`], then the broker. `ledger` says what may be committed in which term, `beginning`
//! where a group without an offset begins.
//!
//! A partition that is revoked needs no retiring in the engine: what was read of it is delivered and settled as ever.
//!
//! A message is what an object is to a bucket: equal records of one message are told apart by their number, so that a
//! message that is read again, by whomever and however chunks are cut, gives the same ids. A dead letter's `object` is
//! `<topic>/<partition>`, its `line` the message's offset.

use serde_json::Value;

use crate::component::BuildError;
use crate::input::{Input, InputContext, InputKind};
use crate::kafka::missing;

mod config;

#[cfg(feature = "kafka")]
mod beginning;
#[cfg(feature = "kafka")]
mod connect;
#[cfg(feature = "kafka")]
mod gather;
#[cfg(feature = "kafka")]
mod group;
#[cfg(feature = "kafka")]
mod lane;
#[cfg(feature = "kafka")]
mod ledger;
#[cfg(feature = "kafka")]
mod member;
#[cfg(feature = "kafka")]
mod probe;
#[cfg(feature = "kafka")]
mod reader;
#[cfg(feature = "kafka")]
mod refusal;

use config::{Config, gaps, parse};

/// Which of the two inputs is configured: they differ in how to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    EventHubs,
    Kafka,
}

/// Event Hubs.
pub const EVENT_HUBS: InputKind = InputKind {
    name: "event_hubs",
    about: "Azure Event Hubs, over its Kafka endpoint (tier Standard and up)",
    schema: || schemars::schema_for!(Config),
    check: |table| check(table, Flavour::EventHubs),
    gaps,
    build: |table, context| build(table, context, Flavour::EventHubs),
};

/// Any Kafka.
pub const KAFKA: InputKind = InputKind {
    name: "kafka",
    about: "Topics of Apache Kafka or of whatever speaks its protocol",
    schema: || schemars::schema_for!(Config),
    check: |table| check(table, Flavour::Kafka),
    gaps,
    build: |table, context| build(table, context, Flavour::Kafka),
};

fn check(table: Value, flavour: Flavour) -> Result<String, BuildError> {
    let checked = parse(table, flavour)?;
    if cfg!(not(feature = "kafka")) {
        return Err(missing());
    }
    Ok(format!("{} at {}", checked.config.topics.join(", "), checked.servers.join(", ")))
}

#[cfg(not(feature = "kafka"))]
fn build(table: Value, _: InputContext, flavour: Flavour) -> Result<Box<dyn Input>, BuildError> {
    parse(table, flavour)?;
    Err(missing())
}

#[cfg(feature = "kafka")]
fn build(table: Value, context: InputContext, flavour: Flavour) -> Result<Box<dyn Input>, BuildError> {
    let checked = parse(table, flavour)?;
    Ok(Box::new(reader::Kafka::new(checked, context, flavour)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_is_described_or_the_build_said_to_lack_the_client() {
        let checked = check(json!({ "topics": ["a", "b"], "bootstrap_servers": ["k:9092"] }), Flavour::Kafka);
        if cfg!(feature = "kafka") {
            assert_eq!(checked.unwrap(), "a, b at k:9092");
        } else {
            let error = checked.unwrap_err().to_string();
            assert!(error.contains("no Kafka client") && error.contains("--features kafka"), "{error}");
        }
    }
}
