//! The configuration of the registered components, and the files made from it.

use std::collections::BTreeMap;
use std::path::Path;

use auditferry::config::{self, Config};
use auditferry::registry;

/// Compares a generated file with the one in the repository; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(known == text, "config/{name} is out of date: run UPDATE_GOLDEN=1 cargo test --test it config");
}

fn load(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&[path], &BTreeMap::new()).map_err(|errors| errors.to_string())
}

#[test]
fn the_reference_and_the_schema_in_the_repository_are_those_of_the_code() {
    golden("auditferry.toml", &config::reference());
    golden("auditferry.schema.json", &format!("{:#}\n", config::schema()));
}

/// Whoever uncomments a line must not change what happens. A key that several tables have is told of once, as `key: …`.
#[test]
fn the_reference_shows_a_switch_as_its_text_says_it_stands() {
    let stands =
        |about: &str| ["true", "false"].into_iter().find(|it| about.contains(&format!("Default {it}")));
    let (mut about, mut told, mut switches) = (String::new(), BTreeMap::new(), 0);
    for line in config::reference().lines() {
        if let Some(text) = line.strip_prefix("# ") {
            about = format!("{about} {text}");
            continue;
        }
        let about = std::mem::take(&mut about);
        if let Some((key, value)) = line.trim_start_matches('#').split_once(" = ") {
            let expected = stands(&about).or_else(|| told.get(key).copied());
            assert!(expected.is_none_or(|expected| value == expected), "{about}: {line}");
            switches += usize::from(expected.is_some());
        } else if let (Some((key, text)), "#") = (about.trim().split_once(": "), line) {
            told.extend(stands(text).map(|stands| (key.to_owned(), stands)));
        }
    }
    assert!(switches > 20, "{switches}");
}

#[test]
fn every_configuration_in_the_repository_loads_and_is_warned_of_nothing() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut loaded = 0;
    let recipes = std::fs::read_dir(directory.join("recipes")).unwrap();
    for entry in std::fs::read_dir(directory).unwrap().chain(recipes) {
        let path = entry.unwrap().path();
        // The reference names no input: all of it is commented out.
        if path.extension().is_none_or(|extension| extension != "toml") || path.ends_with("auditferry.toml") {
            continue;
        }
        match Config::load(std::slice::from_ref(&path), &BTreeMap::new()) {
            Ok(config) => assert!(config.warnings.is_empty(), "{}: {:?}", path.display(), config.warnings),
            Err(errors) => panic!("{errors}"),
        }
        loaded += 1;
    }
    assert!(loaded > 9);
}

#[test]
fn the_configurations_for_kubernetes_load() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let read = |path: &str| std::fs::read_to_string(packaging.join(path)).unwrap();
    // A block of YAML, by its indentation. Where a key follows the #, it is an example.
    let uncommented = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(rest) if rest.starts_with(' ') => String::new(),
        Some(rest) => rest.to_owned() + "\n",
        None => line.to_owned() + "\n",
    };
    let block = |text: &str, key: &str| {
        let (_, rest) = text.split_once(key).unwrap();
        let lines = rest.lines().skip(1).take_while(|line| line.is_empty() || line.starts_with("  "));
        lines.map(uncommented).collect::<String>()
    };
    let manifest = block(&read("kubernetes/configmap.yaml"), "auditferry.toml: |");
    let chart = block(&read("helm/auditferry/values.yaml"), "config: |");
    for text in [manifest, chart] {
        let config = load(&text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        assert_eq!(config.pipelines.len(), 1, "{text}");
    }
    let sidecar = read("kubernetes/sidecar.yaml");
    let variables: BTreeMap<String, String> = sidecar
        .split("- name: AUDITFERRY")
        .skip(1)
        .map(|rest| {
            let (name, rest) = rest.split_once('\n').unwrap();
            let value = rest.lines().next().unwrap().trim().strip_prefix("value: ").unwrap();
            (format!("AUDITFERRY{name}"), value.to_owned())
        })
        .collect();
    assert_eq!(Config::load(&[], &variables).unwrap().pipelines.len(), 1, "{variables:?}");
}

#[test]
fn the_configuration_of_the_packages_ships_nothing_and_any_two_of_its_examples_are_a_pipeline() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/auditferry.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(load(&text).unwrap().is_empty());
    let examples = |section: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with(&format!("#{section}."))).map(str::to_owned).collect()
    };
    let (inputs, outputs) = (examples("inputs"), examples("outputs"));
    assert!(inputs.len() > 3 && outputs.len() > 2);
    for input in &inputs {
        for output in &outputs {
            let uncommented = text.replace(input, &input[1..]).replace(output, &output[1..]);
            let config = load(&uncommented).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(config.pipelines.len(), 1);
        }
    }
}

#[test]
fn the_reference_uncommented_has_no_key_that_a_component_does_not_know() {
    let text: String = config::reference()
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')))
        .map(|line| format!("{line}\n"))
        .collect();
    if let Err(errors) = load(&text) {
        // Examples of keys without a default need not be right in their value, only in name and type.
        assert!(!errors.contains("unknown") && !errors.contains("must be"), "{errors}\n{text}");
    }
}

/// The names here are promised: other tools write them.
const DOCUMENTED: &str = r#"
state_dir = "/var/lib/auditferry"
[server]
listen = "127.0.0.1:9598"
[inputs.audit]
type = "bucket"
url = "s3://acme-audit/logs"
layout = "databricks_delivery"
poll_interval = "60s"
[outputs.splunk]
type = "splunk_hec"
url = "https://splunk.example:8088"
token = { file = "/etc/auditferry/hec-token" }
index = "databricks"
ack = false
[outputs.sumo]
type = "sumo"
url = { file = "/etc/auditferry/sumo-url" }
[outputs.elastic]
type = "elastic"
url = "https://es.example:9200"
api_key = { env = "ES_API_KEY" }
index = "databricks-audit-{event_date}"
format = "ecs"
[outputs.out]
type = "file"
path = "/var/log/auditferry/events.ndjson"
compression = "none"
batch = { max_bytes = "1MiB", max_events = 100, max_age = "1s" }
in_flight = 1
timeout = "30s"
tls = { ca_file = "/ca.pem", cert_file = "/cert.pem", key_file = "/key.pem", insecure = false }
proxy = "http://proxy:3128"
[[pipelines]]
input = "audit"
output = "splunk"
[[pipelines]]
input = "audit"
output = "out"
"#;

#[test]
fn the_documented_configuration_loads_and_its_description_names_its_pipelines() {
    let config = load(DOCUMENTED).unwrap();
    let text = config::describe(&config);
    assert!(text.contains("  audit -> splunk\n  audit -> out\n"), "{text}");
    assert!(
        config.warnings.iter().any(|warning| warning.starts_with("outputs.elastic: no pipeline")),
        "{text}"
    );
}

#[test]
fn every_registered_type_is_offered_where_a_type_is_wrong_or_missing() {
    let errors = load("[inputs.a]\ntype = \"nothing\"\n[outputs.b]\ntype = \"splunk\"\n").unwrap_err();
    for name in
        registry::INPUTS.iter().map(|kind| kind.name).chain(registry::OUTPUTS.iter().map(|kind| kind.name))
    {
        assert!(errors.contains(name), "{name} is not in {errors}");
    }
    assert!(errors.contains("did you mean `splunk_hec`?"), "{errors}");
}

#[test]
fn a_type_is_found_by_what_it_is_for() {
    for (section, word, meant) in [
        ("inputs", "s3", "bucket"),
        ("outputs", "opensearch", "elastic"),
        ("outputs", "stdout", "file"),
        ("outputs", "OpenTelemetry", "otlp"),
        ("outputs", "chronicle", "google_secops"),
    ] {
        let errors = load(&format!("[{section}.x]\ntype = \"{word}\"\n")).unwrap_err();
        let told = format!("unknown type `{word}`; did you mean `{meant}`?");
        assert!(errors.contains(&told), "{errors}");
    }
}

#[test]
fn no_component_has_a_key_of_its_own_with_the_name_of_a_common_one() {
    let common = [
        "format",
        "event_original",
        "ocsf_version",
        "compression",
        "batch",
        "in_flight",
        "hold_after_refusals",
    ];
    let http = ["timeout", "tls", "proxy", "proxy_ca_file", "no_proxy", "connection_age"];
    for kind in registry::OUTPUTS {
        let schema = (kind.schema)().to_value();
        for key in common.iter().chain(&http) {
            assert!(schema["properties"].get(key).is_none(), "{}: {key}", kind.name);
        }
    }
}
