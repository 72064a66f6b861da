//! From the configuration to the client's properties.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::config::{Checked, Login, Mechanism, Tls};
use crate::input::InputError;

/// What the client fetches of one partition ahead of being asked, in KiB: memory beside the budget.
const AHEAD_KIB: usize = 512;
/// Bytes of one answer over all partitions.
const ANSWER_BYTES: usize = 8 << 20;
/// Azure closes connections that are idle for four minutes without a word.
const IDLE_MS: u32 = 180_000;

/// The properties of a consumer. Secrets are read now: whoever connects anew gets what they are by then.
///
/// # Errors
/// [`InputError::Refused`] if a secret cannot be had.
pub(super) fn properties(checked: &Checked, group: &str) -> Result<ClientConfig, InputError> {
    let Checked { config, servers, login } = checked;
    let mut client = ClientConfig::new();
    // Its own idea of what is logged comes from the crate `log`, which nobody listens to here.
    client.set_log_level(RDKafkaLogLevel::Info);
    let session_ms = config.session_timeout.0.as_millis();
    for (key, value) in [
        ("bootstrap.servers", servers.join(",")),
        ("client.id", "auditferry".to_owned()),
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
        ("topic.metadata.refresh.interval.ms", "60000".to_owned()),
        ("metadata.max.age.ms", IDLE_MS.to_string()),
        ("connections.max.idle.ms", IDLE_MS.to_string()),
        ("socket.keepalive.enable", "true".to_owned()),
        ("log.connection.close", "false".to_owned()),
    ] {
        client.set(key, value);
    }
    let secure = config.tls.enabled;
    let protocol = match (login, secure) {
        (Login::None, true) => "ssl",
        (Login::None, false) => "plaintext",
        (_, true) => "sasl_ssl",
        (_, false) => "sasl_plaintext",
    };
    client.set("security.protocol", protocol);
    if secure {
        tls(&config.tls, &mut client);
    }
    match login {
        Login::None => {}
        Login::Azure(_) => {
            client.set("sasl.mechanisms", "OAUTHBEARER");
        }
        Login::Password { mechanism, username, password, key } => {
            let password = password.reveal().map_err(|error| InputError::Refused {
                action: format!("cannot log in to {}", servers.join(", ")),
                source: error.into(),
                remedy: format!("check `{key}`"),
            })?;
            let mechanism = match mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            client.set("sasl.mechanisms", mechanism);
            client.set("sasl.username", username);
            client.set("sasl.password", password);
        }
    }
    Ok(client)
}

fn tls(tls: &Tls, client: &mut ClientConfig) {
    // OpenSSL is built in and knows no system's certificates: `probe` looks where systems keep them.
    let authorities = tls.ca_file.as_ref().map_or("probe".to_owned(), |path| path.display().to_string());
    client.set("ssl.ca.location", authorities);
    if let (Some(certificate), Some(key)) = (&tls.cert_file, &tls.key_file) {
        client.set("ssl.certificate.location", certificate.display().to_string());
        client.set("ssl.key.location", key.display().to_string());
    }
    if tls.insecure {
        client.set("enable.ssl.certificate.verification", "false");
    }
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
    fn the_client_commits_nothing_by_itself() {
        let client = of(json!({ "topics": ["t"], "bootstrap_servers": ["k:1"] }));
        let keys = ["enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset"];
        assert_eq!(keys.map(|key| client.get(key).unwrap()), ["false", "false", "earliest"]);
    }
}
