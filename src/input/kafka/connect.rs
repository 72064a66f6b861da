//! From the configuration to the client's properties.

use rdkafka::ClientConfig;

use super::config::Checked;
use crate::input::InputError;
use crate::kafka;

/// What the client fetches of one partition ahead of being asked, in KiB: memory beside the budget.
const AHEAD_KIB: usize = 512;
/// Bytes of one answer over all partitions.
const ANSWER_BYTES: usize = 8 << 20;
/// An answer holds one message however large it is, and the connection would end at one over 100 MB, again and again: as
/// much as the protocol has. What such a message may be is `max_message_bytes`' to say.
const LARGEST_ANSWER_BYTES: i32 = i32::MAX;

/// The properties of a consumer. Secrets are read now: whoever connects anew gets what they are by then.
///
/// # Errors
/// [`InputError::Refused`] if a secret cannot be had.
pub(super) fn properties(checked: &Checked, group: &str) -> Result<ClientConfig, InputError> {
    let Checked { config, servers, login } = checked;
    let mut client = kafka::client(servers, login, &config.tls).map_err(|error| InputError::Refused {
        action: format!("cannot log in to {}", servers.join(", ")),
        source: error.into(),
        remedy: format!("check {}", login.remedy()),
    })?;
    let session_ms = config.session_timeout.0.as_millis();
    for (key, value) in [
        ("group.id", group.to_owned()),
        ("session.timeout.ms", session_ms.to_string()),
        ("heartbeat.interval.ms", (session_ms / 3).min(3000).to_string()),
        // Partitions that stay are not taken away at a rebalance: what is in flight of them is not read again.
        ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
        // The ledger commits, and nothing else does.
        ("enable.auto.commit", "false".to_owned()),
        ("enable.auto.offset.store", "false".to_owned()),
        // Where a position has expired, rather once more than never. `start = "latest"` commits its position first.
        ("auto.offset.reset", "earliest".to_owned()),
        ("isolation.level", "read_committed".to_owned()),
        ("check.crcs", "true".to_owned()),
        ("enable.partition.eof", "true".to_owned()),
        ("allow.auto.create.topics", "false".to_owned()),
        ("queued.max.messages.kbytes", AHEAD_KIB.to_string()),
        ("fetch.message.max.bytes", (AHEAD_KIB << 10).to_string()),
        ("fetch.max.bytes", ANSWER_BYTES.to_string()),
        ("receive.message.max.bytes", LARGEST_ANSWER_BYTES.to_string()),
    ] {
        client.set(key, value);
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Flavour;
    use super::super::config::parse;
    use super::*;

    fn of(table: Value) -> ClientConfig {
        properties(&parse(table, Flavour::Kafka).unwrap(), "g").unwrap()
    }

    #[test]
    fn tls_is_on_and_the_systems_authorities_are_trusted_unless_told_otherwise() {
        let plain = of(json!({ "topics": ["t"], "bootstrap_servers": ["k:1", "l:2"] }));
        assert_eq!(plain.get("bootstrap.servers"), Some("k:1,l:2"));
        assert_eq!(
            (plain.get("security.protocol"), plain.get("ssl.ca.location")),
            (Some("ssl"), Some("probe"))
        );
        assert_eq!(plain.get("enable.ssl.certificate.verification"), None);
        let open = of(json!({ "topics": ["t"], "bootstrap_servers": ["k:1"], "tls": { "enabled": false } }));
        assert_eq!((open.get("security.protocol"), open.get("ssl.ca.location")), (Some("plaintext"), None));
        let sasl = json!({ "mechanism": "scram_sha_512", "username": "u", "password": "p" });
        let tls = json!({ "ca_file": "/ca.pem", "insecure": true });
        let own = of(json!({ "topics": ["t"], "bootstrap_servers": ["k:1"], "sasl": sasl, "tls": tls }));
        let login = ["security.protocol", "sasl.mechanisms", "sasl.username", "sasl.password"];
        assert_eq!(login.map(|key| own.get(key).unwrap()), ["sasl_ssl", "SCRAM-SHA-512", "u", "p"]);
        assert_eq!(own.get("ssl.ca.location"), Some("/ca.pem"));
        assert_eq!(own.get("enable.ssl.certificate.verification"), Some("false"));
    }

    #[test]
    fn a_message_as_large_as_any_cap_may_be_can_be_received() {
        let client =
            of(json!({ "topics": ["t"], "bootstrap_servers": ["k:1"], "max_message_bytes": "1GiB" }));
        let most = client.get("receive.message.max.bytes").map(|bytes| bytes.parse::<usize>().unwrap());
        assert!(most.is_some_and(|most| most > 1 << 30), "{most:?}");
        client.create::<rdkafka::consumer::BaseConsumer>().unwrap();
    }

    #[test]
    fn the_client_commits_nothing_by_itself() {
        let client = of(json!({ "topics": ["t"], "bootstrap_servers": ["k:1"] }));
        let keys = ["enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset"];
        assert_eq!(keys.map(|key| client.get(key).unwrap()), ["false", "false", "earliest"]);
    }
}
