//! The configuration of the inputs `event_hubs` and `kafka`.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Flavour;
use crate::component::{self, BuildError};
use crate::decode::Gaps;
use crate::kafka::{self, Azure, Login, LoginKeys, MAX_TOPIC_BYTES, Sasl, Tls};
use crate::secret::Secret;
use crate::units::{ByteSize, Period};

/// Configuration of the inputs `event_hubs` and `kafka`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "checked, and used by nobody"))]
pub(super) struct Config {
    /// Names of the topics to read; in Event Hubs, of the event hubs.
    #[schemars(extend("examples" = [["insights-logs-audit"]]))]
    pub(super) topics: Vec<String>,
    /// Brokers to ask first, as `host:port`. In Event Hubs `<namespace>.servicebus.windows.net:9093`; may be left out
    /// where `connection_string` names the namespace.
    #[serde(default)]
    #[schemars(extend("examples" = [["acme.servicebus.windows.net:9093"]]))]
    pub(super) bootstrap_servers: Vec<String>,
    /// Beginning of the name of the consumer group, which is `<group>.<input>.<output>`: instances with the same
    /// configuration share the partitions, outputs do not. A new name starts anew at `start`.
    #[serde(default = "defaults::group")]
    pub(super) group: String,
    /// Where a partition is begun in which the group has no position yet.
    #[serde(default)]
    pub(super) start: Start,
    /// Event Hubs: connection string of a shared access policy of the namespace or the event hub with the right
    /// Listen. Default: the identity in `azure`.
    #[serde(default)]
    pub(super) connection_string: Option<Secret>,
    /// Event Hubs: the identity of Entra ID that reads, with the role Azure Event Hubs Data Receiver. Default: that of
    /// the environment (`AZURE_CLIENT_ID` and the like), of the pod or of the machine.
    #[serde(default)]
    pub(super) azure: Azure,
    /// User and password, for brokers that are not Event Hubs.
    #[serde(default)]
    pub(super) sasl: Sasl,
    /// TLS of the connections.
    #[serde(default)]
    pub(super) tls: Tls,
    /// How long an instance may be silent before its partitions go to others, `6s` to `5m`. Event Hubs asks for 30 seconds
    /// or more.
    #[serde(default = "defaults::session_timeout")]
    pub(super) session_timeout: Period,
    /// Largest message that is shipped; a larger one becomes a dead letter with its beginning. At most 1GiB.
    #[serde(default = "defaults::max_message_bytes")]
    pub(super) max_message_bytes: ByteSize,
    /// Databricks account of records that name none, as those of Azure do. Default: their `account_id` stays null.
    #[serde(default)]
    pub(super) account_id: Option<String>,
    /// Workspace id by the Azure resource id of the workspace, for records that name only that:
    /// `{ "/subscriptions/…/workspaces/prod" = "7405611902334455" }`. Upper and lower case are alike.
    #[serde(default)]
    pub(super) workspace_ids: BTreeMap<String, String>,
}

/// Where a partition is begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    /// With the oldest message there is.
    #[default]
    Earliest,
    /// After the newest message there is at the first start; what is there already is left out. Where brokers forget a group
    /// that was away for long, it goes on with the oldest message.
    Latest,
}

mod defaults {
    use std::time::Duration;

    use crate::units::{ByteSize, Period};

    pub(super) fn group() -> String {
        "auditferry".to_owned()
    }
    pub(super) fn session_timeout() -> Period {
        Period(Duration::from_secs(30))
    }
    pub(super) fn max_message_bytes() -> ByteSize {
        ByteSize(16 << 20)
    }
}

/// A configuration whose values fit.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code, reason = "checked, and used by nobody"))]
pub(super) struct Checked {
    pub(super) config: Config,
    /// `host:port`, at least one.
    pub(super) servers: Vec<String>,
    pub(super) login: Login,
}

pub(super) fn parse(table: Value, flavour: Flavour) -> Result<Checked, BuildError> {
    let config: Config = component::parse(table)?;
    let positive = |key: &str, holds: bool, allowed: &str| {
        if holds { Ok(()) } else { Err(BuildError::new(key, format!("must be {allowed}"))) }
    };
    positive("topics", !config.topics.is_empty(), "at least one name")?;
    for topic in &config.topics {
        if topic.is_empty() || topic.len() > MAX_TOPIC_BYTES || !topic.chars().all(kafka::is_of_topic) {
            let message = format!("`{topic}` is no name of a topic: letters, digits, `.`, `_` and `-`");
            return Err(BuildError::new("topics", message));
        }
    }
    positive("group", !config.group.trim().is_empty(), "a name")?;
    let session = Duration::from_secs(6)..=Duration::from_secs(300);
    positive("session_timeout", session.contains(&config.session_timeout.0), "\"6s\" to \"5m\"")?;
    positive("max_message_bytes", (1024..=1 << 30).contains(&config.max_message_bytes.0), "1KiB to 1GiB")?;
    let pair = config.tls.cert_file.is_some() == config.tls.key_file.is_some();
    positive("tls", pair, "given both cert_file and key_file, or none of them")?;
    let servers = kafka::servers(&config.bootstrap_servers, config.connection_string.as_ref())?;
    let login = login(&config, &servers, flavour)?;
    Ok(Checked { config, servers, login })
}

fn login(config: &Config, servers: &[String], flavour: Flavour) -> Result<Login, BuildError> {
    let Config { sasl, connection_string, azure, tls, .. } = config;
    if !azure.is_empty() && (connection_string.is_some() || flavour != Flavour::EventHubs) {
        let message = "goes with type = \"event_hubs\" and without connection_string";
        return Err(BuildError::new("azure", message));
    }
    if !tls.enabled && flavour == Flavour::EventHubs {
        return Err(BuildError::new("tls.enabled", "must be true: Event Hubs speaks nothing but TLS"));
    }
    let azure = (flavour == Flavour::EventHubs).then_some(azure);
    LoginKeys { connection_string: connection_string.as_ref(), sasl, azure }.login(servers)
}

/// What the configuration says in place of the records.
pub(super) fn gaps(table: &Value) -> Gaps {
    // A table that does not parse was refused before anything is built from it.
    let Ok(config) = component::parse::<Config>(table.clone()) else { return Gaps::default() };
    let lower = |(resource, id): (String, String)| (resource.to_ascii_lowercase(), id);
    Gaps {
        account_id: config.account_id,
        workspace_ids: config.workspace_ids.into_iter().map(lower).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CONNECTION: &str =
        "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=read;SharedAccessKey=c2VjcmV0";

    fn refused(table: Value, flavour: Flavour) -> String {
        parse(table, flavour).unwrap_err().to_string()
    }

    #[test]
    fn a_connection_string_is_all_that_event_hubs_needs() {
        let table = json!({ "topics": ["logs"], "connection_string": CONNECTION });
        let checked = parse(table, Flavour::EventHubs).unwrap();
        assert_eq!(checked.servers, ["acme.servicebus.windows.net:9093"]);
        let Login::Password { username, password, .. } = checked.login else { panic!("no login") };
        assert_eq!(
            (username.as_str(), password.reveal().unwrap().as_str()),
            ("$ConnectionString", CONNECTION)
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_by_the_name_of_its_key() {
        let kafka = |more: Value| {
            let mut table = json!({ "topics": ["logs"], "bootstrap_servers": ["a:9092"] });
            table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            refused(table, Flavour::Kafka)
        };
        for (more, key) in [
            (json!({ "topics": [] }), "topics"),
            (json!({ "topics": ["a b"] }), "topics: `a b`"),
            (json!({ "bootstrap_servers": [] }), "bootstrap_servers: is missing"),
            (json!({ "bootstrap_servers": ["https://a:1/"] }), "bootstrap_servers: `https://a:1/`"),
            (json!({ "bootstrap_servers": ["a"] }), "bootstrap_servers: `a`"),
            (json!({ "session_timeout": "1s" }), "session_timeout"),
            (json!({ "group": " " }), "group"),
            (json!({ "sasl": { "username": "u" } }), "sasl.password"),
            (json!({ "sasl": { "password": "p" } }), "sasl.username"),
            (json!({ "tls": { "cert_file": "a.pem" } }), "tls"),
            (
                json!({ "sasl": { "username": "u", "password": "p" }, "connection_string": CONNECTION }),
                "sasl",
            ),
        ] {
            let message = kafka(more);
            assert!(message.starts_with(key), "{message}");
        }
        assert!(kafka(json!({ "azure": { "client_id": "c" } })).starts_with("azure: goes with"));
        let hubs = |table: Value| refused(table, Flavour::EventHubs);
        let azure = json!({ "client_id": "c", "client_secret": "hunter2" });
        let message = hubs(json!({ "topics": ["logs"], "bootstrap_servers": ["a:9093"], "azure": azure }));
        assert!(message.starts_with("azure.tenant_id") && !message.contains("hunter2"), "{message}");
        let message = hubs(json!({ "topics": ["logs"], "connection_string": "SharedAccessKey=hunter2" }));
        assert!(message.contains("Endpoint=sb://") && !message.contains("hunter2"), "{message}");
        let table =
            json!({ "topics": ["logs"], "connection_string": CONNECTION, "tls": { "enabled": false } });
        assert!(hubs(table).starts_with("tls.enabled"));
    }
}
