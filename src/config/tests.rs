//! Whole configurations against kinds whose keys are known here, so that messages can be compared word by word.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::json;

use super::{Config, Kinds, describe, reference, resolve, schema};
use crate::batch::{Framing, Request};
use crate::component::{self, BuildError};
use crate::compress::Encoding;
use crate::decode::Gaps;
use crate::format::FormatName;
use crate::input::InputKind;
use crate::output::{BatchMost, Output, OutputDefaults, OutputKind, Verdict};
use crate::secret::Secret;
use crate::units::{ByteSize, Period};

/// Keys of the input `lake`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their names and types matter here")]
struct Lake {
    /// Address of the lake. More text.
    url: String,
    /// How often.
    #[serde(default = "minute")]
    poll_interval: Period,
    /// Only these.
    #[serde(default)]
    workspaces: Vec<String>,
    /// Where.
    #[serde(default)]
    layout: Option<FormatName>,
    /// How many.
    #[serde(default)]
    days: u32,
}

fn minute() -> Period {
    Period(Duration::from_secs(60))
}

/// Keys of the output `hec`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only their names and types matter here")]
struct Hec {
    /// Address of the collector.
    url: String,
    /// The token.
    token: Secret,
    /// The index.
    index: Option<String>,
    /// Wait for acknowledgements.
    #[serde(default)]
    ack: bool,
    /// Extra headers.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
}

struct Nowhere;

#[async_trait::async_trait]
impl Output for Nowhere {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    async fn send(&self, _: &Request) -> Verdict {
        Verdict::TooLarge
    }
}

const KINDS: Kinds = Kinds {
    inputs: &[InputKind {
        name: "lake",
        about: "A lake.",
        schema: || schema_for!(Lake),
        check: |table| component::parse::<Lake>(table).map(|lake| format!("reads {}", lake.url)),
        gaps: |_| Gaps::default(),
        build: |_, _| Err(BuildError::new("", "not built in tests")),
    }],
    outputs: &[OutputKind {
        name: "hec",
        about: "A collector.",
        defaults: OutputDefaults {
            format: FormatName::Canonical,
            compression: Encoding::Gzip,
            compressions: &[Encoding::None, Encoding::Gzip],
            max_bytes: 1 << 20,
            max_events: 1000,
            most: Some(BatchMost { bytes: 1 << 30, events: Some(2000), why: "it takes no more" }),
            max_age: Duration::from_secs(1),
            in_flight: 4,
        },
        schema: || schema_for!(Hec),
        build: |table, _| {
            let hec = component::parse::<Hec>(table)?;
            hec.token.reveal().map_err(|error| BuildError::new("token", error))?;
            Ok(Box::new(Nowhere))
        },
    }],
};

mod mistakes;

const MINIMAL: &str = r#"
[inputs.audit]
type = "lake"
url = "lake:"
[outputs.splunk]
type = "hec"
url = "https://splunk"
token = "hunter2"
"#;

struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, names: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let files: Vec<_> = names.iter().map(|name| self.path(name)).collect();
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        resolve::load(&files, &environment, KINDS)
            .map_err(|errors| errors.to_string().replace(&format!("{}/", self.0.path().display()), ""))
    }
}

/// Loads the minimal configuration with more lines at its end, or in place of one of its lines.
fn load(more: &str) -> Result<Config, String> {
    Files::new(&[("a.toml", &format!("{MINIMAL}{more}"))]).load(&["a.toml"], &[])
}

fn load_with(from: &str, to: &str) -> Result<Config, String> {
    assert!(MINIMAL.contains(from));
    Files::new(&[("a.toml", &MINIMAL.replace(from, to))]).load(&["a.toml"], &[])
}

#[test]
fn what_is_not_configured_has_the_documented_default() {
    let config = load("").unwrap();
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/auditferry"));
    assert_eq!(config.server.listen.unwrap().to_string(), "127.0.0.1:9598");
    assert_eq!((config.memory, config.shutdown_grace), (ByteSize(32 << 20), Period(Duration::from_secs(30))));
    let splunk = &config.outputs["splunk"];
    assert_eq!((splunk.common.in_flight, splunk.common.batch.max_events), (4, 1000));
    assert_eq!(splunk.common.compression, Encoding::Gzip);
    assert_eq!(splunk.table, json!({ "url": "https://splunk", "token": "hunter2" }));
    assert_eq!(config.pipelines.len(), 1);
    assert!(load("[server]\nlisten = \"none\"").unwrap().server.listen.is_none());
}

#[test]
fn common_keys_reach_the_engine_and_not_the_component() {
    let config = load(
        "format = \"ecs\"\nevent_original = true\ncompression = \"none\"\nin_flight = 256\ntimeout = \"5s\"\n\
         proxy = \"none\"\nbatch.max_bytes = \"2MiB\"\nbatch.max_age = \"3s\"\ntls.insecure = true\nack = true",
    )
    .unwrap();
    let splunk = &config.outputs["splunk"];
    let common = &splunk.common;
    assert_eq!((common.format, common.format_options.event_original), (FormatName::Ecs, true));
    assert_eq!((common.compression, common.in_flight), (Encoding::None, 256));
    assert_eq!((common.batch.max_bytes, common.batch.max_events), (ByteSize(2 << 20), 1000));
    assert_eq!(common.http.timeout.0, Duration::from_secs(5));
    assert!(common.http.tls.insecure && common.http.proxy.is_some());
    assert_eq!(splunk.table, json!({ "ack": true, "url": "https://splunk", "token": "hunter2" }));
}

#[test]
fn later_files_win_drop_ins_come_after_their_file_in_order_of_their_names() {
    let files = Files::new(&[
        ("a.toml", &format!("memory = \"1MiB\"\nshutdown_grace = \"1s\"\n{MINIMAL}")),
        ("conf.d/20.toml", "memory = \"20MiB\"\n[outputs.splunk]\nindex = \"late\"\n"),
        ("conf.d/10.toml", "memory = \"10MiB\"\n[outputs.splunk]\nindex = \"early\"\nack = true\n"),
        ("conf.d/.30.toml", "memory = \"30MiB\""),
        ("conf.d/40.toml.bak", "memory = \"40MiB\""),
        ("other/b.toml", "[outputs.splunk]\ntoken = { file = \"/x\" }\n"),
    ]);
    let config = files.load(&["a.toml", "other/b.toml"], &[]).unwrap();
    assert_eq!((config.memory, config.shutdown_grace.0), (ByteSize(20 << 20), Duration::from_secs(1)));
    assert_eq!(
        config.outputs["splunk"].table,
        json!({ "ack": true, "index": "late", "url": "https://splunk", "token": { "file": "/x" } })
    );
    let error = config.error("outputs.splunk.index", "x").to_string();
    assert!(error.contains("conf.d/20.toml:3: outputs.splunk.index: x"), "{error}");
}

#[test]
fn drop_ins_that_two_files_share_are_read_once_so_that_the_second_file_wins() {
    let files = Files::new(&[
        ("a.toml", MINIMAL),
        ("b.toml", "memory = \"2MiB\""),
        ("conf.d/1.toml", "memory = \"1MiB\""),
    ]);
    assert_eq!(files.load(&["a.toml", "b.toml"], &[]).unwrap().memory, ByteSize(2 << 20));
}

#[test]
fn only_a_secret_in_a_file_and_a_batch_beyond_the_memory_are_warned_of() {
    let text = MINIMAL.replace("token = \"hunter2\"", "batch.max_bytes = \"64MiB\"");
    let token = [("AUDITFERRY__OUTPUTS__SPLUNK__TOKEN", "hunter2")];
    let config = Files::new(&[("a.toml", &text)]).load(&["a.toml"], &token).unwrap();
    assert_eq!(
        config.warnings,
        ["outputs.splunk.batch.max_bytes: a batch of 64MiB never fills, since memory is 32MiB; raise memory"]
    );
}

#[test]
fn the_environment_wins_and_takes_the_type_its_key_has() {
    let files =
        Files::new(&[("a.toml", MINIMAL), ("conf.d/1.toml", "[outputs.splunk.token]\nfile = \"/x\"")]);
    let config = files
        .load(
            &["a.toml"],
            &[
                ("AUDITFERRY__OUTPUTS__SPLUNK__INDEX", "0123"),
                ("AUDITFERRY__OUTPUTS__SPLUNK__ACK", "true"),
                ("AUDITFERRY__OUTPUTS__SPLUNK__IN_FLIGHT", "7"),
                ("AUDITFERRY__OUTPUTS__SPLUNK__TOKEN__ENV", "TOKEN"),
                ("AUDITFERRY__OUTPUTS__SPLUNK__BATCH__MAX_BYTES", "2048"),
                ("AUDITFERRY__OUTPUTS__SPLUNK__URL", ""),
                ("AUDITFERRY__INPUTS__AUDIT__WORKSPACES", "1, 2"),
                ("AUDITFERRY_PORT", "tcp://10.0.0.1"),
            ],
        )
        .unwrap();
    let splunk = &config.outputs["splunk"];
    assert_eq!(
        splunk.table,
        json!({ "ack": true, "index": "0123", "url": "https://splunk", "token": { "env": "TOKEN" } })
    );
    assert_eq!((splunk.common.in_flight, splunk.common.batch.max_bytes), (7, ByteSize(2048)));
    assert_eq!(config.inputs["audit"].table["workspaces"], json!(["1", "2"]));

    let error = files.load(&["a.toml"], &[("AUDITFERRY__OUTPUTS__SPLUNK__ACK", "ja")]).unwrap_err();
    assert!(error.starts_with("environment: outputs.splunk.ack: must be true or false\n"), "{error}");
    let error = files.load(&["a.toml"], &[("AUDITFERRY__OUTPUTS__SPLUNK__INDX", "x")]).unwrap_err();
    assert!(
        error.starts_with("environment: outputs.splunk.indx: unknown key; did you mean `index`?"),
        "{error}"
    );
}

#[test]
fn a_variable_that_misses_its_mark_is_told() {
    let text = MINIMAL.replace("token = \"hunter2\"", "token = { env = \"AUDITFERRY_TOKEN\" }");
    let files = Files::new(&[("a.toml", &text)]);
    let load = |variables: &[(&str, &str)]| files.load(&["a.toml"], variables);
    let silent = [
        ("AUDITFERRY__MEMORY", "1MiB"),
        ("AUDITFERRY_TOKEN", "hunter2"),
        ("AUDITFERRY_PORT", "tcp://10.0.0.1:9598"),
        ("AUDITFERRY_PORT_9598_TCP_ADDR", "10.0.0.1"),
        ("AUDITFERRY_METRICS_SERVICE_HOST", "10.0.0.1"),
        ("AUDITFERRY_SERVICE_PORT_HTTP", "9598"),
    ];
    assert_eq!(load(&silent).unwrap().warnings, [""; 0]);
    for (variable, meant) in [
        ("STATE_DIR", "_STATE_DIR"),
        ("PORT_FILE", "_PORT_FILE"),
        ("OUTPUTS_SPLUNK_URL", "_OUTPUTS__SPLUNK__URL"),
    ] {
        let told = format!(
            "environment: AUDITFERRY_{variable} does nothing; a key of the configuration has two underscores before each of \
             its parts, as AUDITFERRY_{meant}"
        );
        assert_eq!(load(&[(&format!("AUDITFERRY_{variable}"), "/x")]).unwrap().warnings, [told]);
    }
}

#[test]
fn a_component_that_only_the_environment_names_is_told_with_the_one_that_was_meant() {
    let refused = |variable: &str, value: &str| {
        let environment = [(variable, value)];
        Files::new(&[("a.toml", MINIMAL)]).load(&["a.toml"], &environment).unwrap_err()
    };
    assert_eq!(
        refused("AUDITFERRY__OUTPUTS__SPLNK__URL", "foo"),
        "environment: outputs.splnk.type: is missing: only the environment names outputs.splnk; did you mean `splunk`? \
         (allowed: splunk)"
    );
    assert_eq!(
        refused("AUDITFERRY__INPUTS__ZZ__URL", "foo"),
        "environment: inputs.zz.type: is missing: only the environment names inputs.zz (allowed: audit)"
    );
    let alone = [("AUDITFERRY__INPUTS__A__URL", "x"), ("AUDITFERRY__OUTPUTS__B__URL", "y")];
    let error = Files::new(&[]).load(&[], &alone).unwrap_err();
    assert!(error.starts_with("environment: inputs.a.type: is missing (allowed: lake)\n"), "{error}");
}

#[test]
fn verifying_resolves_secrets_that_loading_leaves_alone() {
    let config = load_with("token = \"hunter2\"", "token = { file = \"/no/such/file\" }").unwrap();
    let error = config.verify().unwrap_err().to_string();
    assert!(error.contains("outputs.splunk.token: cannot read the secret file /no/such/file"), "{error}");
    load("").unwrap().verify().unwrap();
}

#[test]
fn pipelines_are_all_pairs_unless_they_are_listed() {
    let second = "[outputs.second]\ntype = \"hec\"\nurl = \"x\"\ntoken = \"t\"\n";
    let all = load(second).unwrap();
    let names: Vec<_> = all.pipelines.iter().map(|pipeline| pipeline.output.as_str()).collect();
    assert_eq!(names, ["second", "splunk"]);
    let listed = format!("{second}[[pipelines]]\ninput = \"audit\"\noutput = \"splunk\"\n");
    let some = load(&listed).unwrap();
    assert_eq!(some.pipelines.len(), 1);
    assert!(
        some.warnings.contains(&"outputs.second: no pipeline sends to it".to_owned()),
        "{:?}",
        some.warnings
    );
    let twice =
        load(&format!("{listed}[[pipelines]]\ninput = \"audit\"\noutput = \"splunk\"\n")).unwrap_err();
    assert!(twice.ends_with("pipelines[1]: audit to splunk is listed twice; take one out"), "{twice}");
}

#[test]
fn an_option_of_another_format_is_warned_of() {
    let warned = |text: &str| load(text).unwrap().warnings.join("\n");
    let original = "outputs.splunk.event_original: does nothing with format = \"canonical\"";
    assert!(warned("event_original = true").contains(original), "{}", warned("event_original = true"));
    let version = "outputs.splunk.ocsf_version: does nothing with format = \"ecs\"";
    let text = warned("ocsf_version = \"1.5.0\"\nformat = \"ecs\"\nevent_original = true");
    assert!(text.contains(version) && !text.contains("event_original"), "{text}");
    assert!(!warned("ocsf_version = \"1.5.0\"\nformat = \"ocsf\"").contains("does nothing"));
    assert!(!warned("").contains("does nothing"));
}

#[test]
fn the_description_shows_what_will_happen_and_no_secret() {
    let config =
        load("headers.X-Key = \"hunter3\"\ntls.insecure = true\nproxy = \"http://u:hunter4@proxy:1\"")
            .unwrap();
    let text = describe(&config);
    for part in [
        "  audit -> splunk\n",
        "  audit (lake): reads lake:\n",
        "  splunk (hec): canonical, gzip, batches of up to 1MiB, 1000 events or 1s, 4 in flight\n",
        "warning: outputs.splunk.tls.insecure: certificates are not verified",
        "warning: outputs.splunk.token: the secret stands in ",
        "warning: outputs.splunk.headers.X-Key: the secret stands in ",
    ] {
        assert!(text.contains(part), "{part} not in\n{text}");
    }
    assert!(!text.contains("hunter") && !format!("{config:?}").contains("hunter"), "{text}{config:?}");
}

#[test]
fn the_reference_names_every_key_and_is_a_configuration_once_uncommented() {
    let text = reference::whole(KINDS);
    let uncommented: String = text
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')))
        .map(|line| format!("{line}\n"))
        .collect();
    let uncommented =
        uncommented.replace("input = \"bucket\"", "input = \"lake\"").replace("\"splunk_hec\"", "\"hec\"");
    let config = Files::new(&[("a.toml", &uncommented)]).load(&["a.toml"], &[]).expect(&uncommented);
    assert_eq!(config.outputs["hec"].common.batch.max_age.0, Duration::from_secs(1));
    for key in schema::output(&KINDS.outputs[0])["properties"].as_object().unwrap().keys() {
        let line = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.']));
        assert!(uncommented.lines().any(line), "{key} is not in\n{text}");
    }
}
