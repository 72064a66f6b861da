//! From the merged keys to a [`Config`]: finds each component's kind, checks its keys, and joins inputs with outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::check::{check, hint, hint_by};
use super::error::{ConfigErrors, Report, below};
use super::layers::ENVIRONMENT;
use super::{
    Config, InputSettings, Kinds, OutputSettings, Pipeline, Redaction, Server, Settings, Written, layers,
    output, schema, warn,
};
use crate::component;
use crate::input::InputKind;
use crate::output::OutputKind;
use crate::registry;
use crate::secret::Secret;

/// The budget of bytes is counted in 32 bits.
const MAX_MEMORY: u64 = 4 << 30;

/// Reads and checks everything but the components' own values; those only if there is something wrong anyway, so that
/// all errors come at once and yet no secret is needed to load.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn load(
    files: &[PathBuf],
    environment: &BTreeMap<String, String>,
    kinds: Kinds,
) -> Result<Config, ConfigErrors> {
    let (mut tree, origins) = layers::read(files, environment)?;
    let written = Written(tree.clone());
    let mut report = Report::new(origins);
    check(&mut tree, &schema::top(), "", &mut report);
    let mut top = if let Value::Object(top) = tree { top } else { Map::new() };
    // A package's first configuration: valid, and the service runs and says what to add. One of the two alone is a mistake.
    let empty = ["inputs", "outputs", "pipelines"].iter().all(|section| !top.contains_key(*section));
    let (inputs, outputs) = match empty {
        true => (Named::new(), Named::new()),
        false => (
            inputs(named_tables(&mut top, "inputs"), kinds, &mut report),
            outputs(named_tables(&mut top, "outputs"), kinds, &mut report),
        ),
    };
    let settings: Settings = report.each(top.into(), "", component::parse).unwrap_or_default();
    if settings.memory.0 == 0 || settings.memory.0 > MAX_MEMORY {
        report.error("memory", "must be more than 0 and at most 4GiB, such as \"32MiB\"");
    }
    let pipelines = pipelines(settings.pipelines, &inputs, &outputs, &mut report);
    if !report.errors.is_empty() {
        components(whole(&inputs), whole(&outputs), &mut report);
        redaction(&settings.redaction, &mut report);
        secrets(&settings.server, &settings.redaction, &mut report);
        return Err(ConfigErrors(report.errors));
    }
    let mut config = Config {
        state_dir: settings.state_dir,
        server: settings.server,
        log: settings.log,
        memory: settings.memory,
        shutdown_grace: settings.shutdown_grace,
        redaction: settings.redaction,
        inputs: inputs.into_iter().filter_map(|(name, settings)| Some((name, settings?))).collect(),
        outputs: outputs.into_iter().filter_map(|(name, settings)| Some((name, settings?))).collect(),
        pipelines,
        warnings: Vec::new(),
        written,
        origins: report.origins,
    };
    config.warnings = warn::warnings(&config, environment);
    Ok(config)
}

/// Checks the components' own values.
pub(super) fn components<'a>(
    inputs: impl Iterator<Item = (&'a String, &'a InputSettings)>,
    outputs: impl Iterator<Item = (&'a String, &'a OutputSettings)>,
    report: &mut Report,
) {
    for (name, settings) in inputs {
        let path = below("inputs", name);
        if !reports_lacking(settings.kind.name, &path, report) {
            report.each(settings.table.clone(), &path, settings.kind.check);
        }
    }
    for (name, settings) in outputs {
        if reports_lacking(settings.kind.name, &below("outputs", name), report) {
            continue;
        }
        report.each(settings.table.clone(), &below("outputs", name), |table| settings.build(name, table));
    }
}

/// Says so where this build cannot run a type at all: what is wrong with its keys and secrets does not matter then.
fn reports_lacking(kind: &str, path: &str, report: &mut Report) -> bool {
    let lacking = registry::lacking(kind);
    if let Some(why) = &lacking {
        report.error(&below(path, &why.key), &why.message);
    }
    lacking.is_some()
}

/// Resolves the secrets of the sections that are no component's.
pub(super) fn secrets(server: &Server, redaction: &Redaction, report: &mut Report) {
    for (key, secret) in [("server.token", &server.token), ("redaction.key", &redaction.key)] {
        if let Some(Err(error)) = secret.as_ref().map(Secret::reveal) {
            report.error(key, error.to_string());
        }
    }
}

/// Checks the rules of redaction.
pub(super) fn redaction(redaction: &Redaction, report: &mut Report) {
    if let Err(message) = redaction.redactor(&[]) {
        report.error("redaction.patterns", message);
    }
}

/// Components by name; nothing where one is too wrong to be read.
type Named<T> = BTreeMap<String, Option<T>>;

fn named_tables(top: &mut Map<String, Value>, section: &str) -> Vec<(String, Map<String, Value>)> {
    let Some(Value::Object(tables)) = top.remove(section) else { return Vec::new() };
    let mut named = Vec::new();
    for (name, table) in tables {
        if let Value::Object(table) = table {
            named.push((name, table));
        }
    }
    named
}

fn whole<T>(named: &Named<T>) -> impl Iterator<Item = (&String, &T)> {
    named.iter().filter_map(|(name, settings)| Some((name, settings.as_ref()?)))
}

fn inputs(
    tables: Vec<(String, Map<String, Value>)>,
    kinds: Kinds,
    report: &mut Report,
) -> Named<InputSettings> {
    if tables.is_empty() && !report.names("inputs") {
        let types = list(kinds.inputs.iter().map(|kind| kind.name));
        report.error("inputs", format!("no input is configured; add [inputs.NAME] with a type ({types})"));
    }
    let in_files = in_files("inputs", &tables, report);
    let mut named = Named::new();
    for (name, table) in tables {
        let path = below("inputs", &name);
        let words = |kind: &InputKind| (kind.name, kind.about);
        let kind = kind_of(&name, &table, "inputs", &in_files, report, kinds.inputs, words);
        let before = report.errors.len();
        let settings =
            kind.map(|kind| InputSettings { kind, table: own(table, &schema::input(kind), &path, report) });
        put_lacking_first(kind.map(|kind| kind.name), &path, before, report);
        named.insert(name, settings);
    }
    named
}

fn outputs(
    tables: Vec<(String, Map<String, Value>)>,
    kinds: Kinds,
    report: &mut Report,
) -> Named<OutputSettings> {
    if tables.is_empty() && !report.names("outputs") {
        let types = list(kinds.outputs.iter().map(|kind| kind.name));
        report.error("outputs", format!("no output is configured; add [outputs.NAME] with a type ({types})"));
    }
    let in_files = in_files("outputs", &tables, report);
    let mut named = Named::new();
    for (name, table) in tables {
        let path = below("outputs", &name);
        let words = |kind: &OutputKind| (kind.name, kind.about);
        let kind = kind_of(&name, &table, "outputs", &in_files, report, kinds.outputs, words);
        let before = report.errors.len();
        let settings = kind.and_then(|kind| {
            let mut table = own(table, &schema::output(kind), &path, report);
            let common = output::take(&mut table, &kind.defaults, &path, report)?;
            Some(OutputSettings { kind, common, table })
        });
        put_lacking_first(kind.map(|kind| kind.name), &path, before, report);
        named.insert(name, settings);
    }
    named
}

/// Replaces what was found wrong with a component since `before` by that this build cannot run it, where that is so. Alone
/// that is no error of loading: `simulate` and `setup` run nothing.
fn put_lacking_first(kind: Option<&str>, path: &str, before: usize, report: &mut Report) {
    if report.errors.len() > before && kind.is_some_and(|kind| registry::lacking(kind).is_some()) {
        report.errors.truncate(before);
        reports_lacking(kind.unwrap_or_default(), path, report);
    }
}

/// A component's table after a look at its schema, without `type`.
fn own(table: Map<String, Value>, schema: &Value, path: &str, report: &mut Report) -> Value {
    let mut table = Value::Object(table);
    check(&mut table, schema, path, report);
    if let Some(keys) = table.as_object_mut() {
        keys.remove("type");
    }
    table
}

/// The components of which a file says something: a variable that is misspelt makes a new one.
fn in_files(section: &str, tables: &[(String, Map<String, Value>)], report: &Report) -> Vec<String> {
    let names = tables.iter().map(|(name, _)| name);
    names.filter(|name| !report.origins.stands_only_in(ENVIRONMENT, &below(section, name))).cloned().collect()
}

/// The row of the registry that `type` names.
fn kind_of<K>(
    name: &str,
    table: &Map<String, Value>,
    section: &str,
    in_files: &[String],
    report: &mut Report,
    kinds: &'static [K],
    words: fn(&K) -> (&'static str, &'static str),
) -> Option<&'static K> {
    let path = &below(section, name);
    // The name becomes part of the state's keys, `<input>/<output>`, and of metric labels.
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        report.error(path, "a name is made of letters, digits, `_` and `-`");
        return None;
    }
    let types = kinds.iter().map(|kind| words(kind).0);
    let at = below(path, "type");
    match table.get("type") {
        None if !in_files.is_empty() && report.origins.stands_only_in(ENVIRONMENT, path) => {
            let hint = hint(name, in_files.iter().map(String::as_str));
            report.error(&at, format!("is missing: only the environment names {path}{hint}"));
        }
        None => report.error(&at, format!("is missing (allowed: {})", list(types))),
        Some(Value::String(text)) => {
            let found = kinds.iter().find(|kind| words(kind).0 == text);
            if found.is_none() {
                let meant = hint_by(text, types, || about(text, kinds.iter().map(words)));
                report.error(&at, format!("unknown type `{text}`{meant}"));
            }
            return found;
        }
        Some(_) => report.error(&at, format!("must be one of {}", list(types))),
    }
    None
}

/// The only kind that is told of in this word: `s3` is a `bucket`, `opensearch` is `elastic`.
fn about<'a>(word: &str, kinds: impl Iterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    let tells = |about: &str| {
        about.split(|c: char| !c.is_alphanumeric()).any(|other| other.eq_ignore_ascii_case(word))
    };
    let mut told = kinds.filter(|(_, about)| tells(about)).map(|(name, _)| name);
    told.next().filter(|_| told.next().is_none())
}

/// The pipelines as configured, else every input to every output.
fn pipelines(
    configured: Vec<Pipeline>,
    inputs: &Named<InputSettings>,
    outputs: &Named<OutputSettings>,
    report: &mut Report,
) -> Vec<Pipeline> {
    if configured.is_empty() {
        let pair =
            |input: &String, output: &String| Pipeline { input: input.clone(), output: output.clone() };
        return inputs
            .keys()
            .flat_map(|input| outputs.keys().map(move |output| pair(input, output)))
            .collect();
    }
    let mut seen = BTreeSet::new();
    for (index, pipeline) in configured.iter().enumerate() {
        let path = format!("pipelines[{index}]");
        known(inputs, "input", &pipeline.input, &path, report);
        known(outputs, "output", &pipeline.output, &path, report);
        if !seen.insert(pipeline) {
            let Pipeline { input, output } = pipeline;
            report.error(&path, format!("{input} to {output} is listed twice; take one out"));
        }
    }
    configured
}

fn known<T>(named: &Named<T>, section: &str, name: &str, path: &str, report: &mut Report) {
    if !named.contains_key(name) {
        let hint = hint(name, named.keys().map(String::as_str));
        report.error(&below(path, section), format!("there is no {section} `{name}`{hint}"));
    }
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
