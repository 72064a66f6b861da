//! What the configuration comes to; and with the client, against librdkafka's mock cluster: brokers in process that fail
//! on cue.

use serde_json::{Value, json};

use super::*;

fn plan_with(more: &Value, http: &HttpSettings) -> Result<Plan, BuildError> {
    let mut table = json!({ "topic": "audit", "bootstrap_servers": ["k:9092"] });
    if let (Some(table), Some(more)) = (table.as_object_mut(), more.as_object()) {
        table.extend(more.clone());
    }
    Plan::new(parse(table)?, http)
}

fn plan(more: &Value) -> Result<Plan, BuildError> {
    plan_with(more, &HttpSettings::default())
}

const CONNECTION: &str =
    "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=c2VjcmV0";

#[test]
fn a_connection_string_is_all_that_event_hubs_needs_and_its_codec_is_gzip() {
    let table = json!({ "topic": "audit", "connection_string": CONNECTION });
    let plan = Plan::new(parse(table).unwrap(), &HttpSettings::default()).unwrap();
    assert_eq!(plan.servers, ["acme.servicebus.windows.net:9093"]);
    assert!(matches!(plan.login, Login::Password { key: "connection_string", .. }));
    assert_eq!((plan.codec, plan.tls.enabled), (Codec::Gzip, true));
}

#[test]
fn an_identity_logs_in_where_azure_is_named_and_nobody_without() {
    let azure = json!({ "client_id": "c", "tenant_id": "t", "client_secret": "hunter2" });
    let hubs = json!({ "bootstrap_servers": ["acme.servicebus.windows.net:9093"], "azure": azure });
    assert!(matches!(plan(&hubs).unwrap().login, Login::Azure(_)));
    let open = plan(&json!({ "plaintext": true })).unwrap();
    assert!(matches!(open.login, Login::None) && !open.tls.enabled && open.codec == Codec::Zstd);
}

#[test]
fn a_wrong_configuration_names_its_key_and_no_secret() {
    for (more, key) in [
        (json!({ "topic": "" }), "topic: "),
        (json!({ "topic": "a b" }), "topic: `a b`"),
        (json!({ "topic": ".." }), "topic: "),
        (json!({ "topic": "x".repeat(250) }), "topic: "),
        (json!({ "topic": "a-{event_id}" }), "topic: {event_id}"),
        (json!({ "topic": "{nothing}" }), "topic: "),
        (json!({ "key": "{nothing}" }), "key: "),
        (json!({ "bootstrap_servers": [] }), "bootstrap_servers: "),
        (json!({ "bootstrap_servers": ["https://k"] }), "bootstrap_servers: "),
        (json!({ "delivery_timeout": "1s" }), "delivery_timeout: "),
        (json!({ "codec": "brotli" }), "codec: "),
        (json!({ "sasl": { "username": "u" } }), "sasl.password: "),
        (json!({ "sasl": { "password": "hunter2" } }), "sasl.username: "),
        (json!({ "connection_string": CONNECTION, "azure": {} }), "azure: "),
        (
            json!({ "connection_string": CONNECTION, "sasl": { "username": "u", "password": "hunter2" } }),
            "sasl: ",
        ),
        (json!({ "bootstrap_servers": ["a.servicebus.windows.net:9093"], "codec": "lz4" }), "codec: "),
    ] {
        let error = plan(&more).unwrap_err().to_string();
        assert!(error.starts_with(key) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn what_the_client_cannot_heed_of_the_common_keys_is_refused() {
    use crate::http::TlsSettings;
    let tls = |tls| HttpSettings { tls, ..HttpSettings::default() };
    let file = || Some("a.pem".into());
    for (http, key) in [
        (HttpSettings { proxy: Some("http://p:1".to_owned()), ..HttpSettings::default() }, "proxy"),
        (tls(TlsSettings { min_version: TlsVersion::V1_3, ..TlsSettings::default() }), "tls.min_version"),
        (tls(TlsSettings { cert_file: file(), ..TlsSettings::default() }), "tls"),
    ] {
        assert_eq!(plan_with(&json!({}), &http).unwrap_err().key, key);
    }
    let http = tls(TlsSettings { ca_file: file(), insecure: true, ..TlsSettings::default() });
    let plan = plan_with(&json!({}), &http).unwrap();
    assert!(plan.tls.insecure && plan.tls.ca_file == file());
}

#[test]
fn an_output_is_built_or_the_build_said_to_lack_the_client() {
    let table = json!({ "topic": "audit", "bootstrap_servers": ["k:9092"] });
    let context = OutputContext { name: "k".into(), format: FormatName::Raw, http: HttpSettings::default() };
    let built = build(table, context);
    if cfg!(feature = "kafka") {
        assert!(built.is_ok());
    } else {
        let error = built.err().unwrap().to_string();
        assert!(error.contains("no Kafka client") && error.contains("--features kafka"), "{error}");
    }
}
