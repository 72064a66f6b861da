//! Reads the files and the environment and lays them over each other, remembering where each key came from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ::config::{Environment, FileFormat, Format, Map, Source, Value, ValueKind};
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors, Origins, below};

/// What the environment is called in errors.
pub(super) const ENVIRONMENT: &str = "environment";
const ENVIRONMENT_PREFIX: &str = "AUDITFERRY";

/// Reads the files (`conf.d/*.toml` beside each of them after it, in order of the names) and the environment over
/// them. A later layer wins, key by key; lists are replaced whole.
///
/// # Errors
/// Every file that cannot be read or is no TOML.
pub(super) fn read(
    files: &[PathBuf],
    environment: &BTreeMap<String, String>,
) -> Result<(Json, Origins), ConfigErrors> {
    let mut sources: Vec<Box<dyn Source + Send + Sync>> = Vec::new();
    let mut layers = Vec::new();
    let mut lines = Vec::new();
    let mut errors = Vec::new();
    for path in with_drop_ins(files, &mut errors) {
        match TomlFile::read(&path) {
            Ok(file) => {
                layers.push(file.origin.clone());
                lines.push(file.lines);
                sources.push(Box::new(file.source));
            }
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    layers.push(ENVIRONMENT.to_owned());
    sources.push(Box::new(variables(environment)));
    let merged = sources.collect().map_err(|error| failure(ENVIRONMENT, error.to_string()))?;
    let mut origins = Origins::new(layers);
    for (layer, lines) in lines.into_iter().enumerate() {
        origins.insert_lines(layer, lines);
    }
    let tree = into_json(Value::new(None, ValueKind::Table(merged)), "", &mut origins);
    Ok((tree, origins))
}

fn failure(origin: &str, message: String) -> ConfigError {
    ConfigError { origin: origin.to_owned(), line: None, key: String::new(), message }
}

/// The files in reading order; a `conf.d` that two files share is read once.
fn with_drop_ins(files: &[PathBuf], errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        all.push(file.clone());
        let directory = file.parent().unwrap_or(Path::new("")).join("conf.d");
        if !directory.is_dir() || !seen.insert(directory.clone()) {
            continue;
        }
        match drop_ins(&directory) {
            Ok(found) => all.extend(found),
            Err(error) => errors.push(failure(
                &directory.display().to_string(),
                format!("cannot read the directory: {error}; make it readable for this user"),
            )),
        }
    }
    all
}

fn drop_ins(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// `AUDITFERRY__OUTPUTS__SPLUNK__URL` is `outputs.splunk.url`. Values stay text here: only the schema knows whether
/// `0123` is a number or a token. Empty variables count as unset.
fn variables(environment: &BTreeMap<String, String>) -> Environment {
    let variables: HashMap<String, String> =
        environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Environment::with_prefix(ENVIRONMENT_PREFIX)
        .prefix_separator("__")
        .separator("__")
        .ignore_empty(true)
        .source(Some(variables))
}

/// A file as it was read. `config::File` is not used: it reports the path relative to the working directory, tries
/// other extensions for a missing file, and quotes the offending line, which may hold a secret.
struct TomlFile {
    origin: String,
    source: TomlSource,
    /// The line of each key.
    lines: BTreeMap<String, usize>,
}

#[derive(Clone, Debug)]
struct TomlSource {
    values: Map<String, Value>,
}

impl TomlFile {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::NotFound => "create it, or name another with --config",
                ErrorKind::PermissionDenied => "make it readable for this user",
                _ => "it must be a TOML file in UTF-8",
            };
            failure(&origin, format!("cannot read the file: {error}; {remedy}"))
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let starts = LineStarts::of(text);
        let table = DeTable::parse(text).map_err(|error| {
            let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
            let line = starts.line(error.span().map_or(0, |span| span.start));
            ConfigError { line: Some(line), ..failure(&origin, message) }
        })?;
        let mut lines = BTreeMap::new();
        starts.of_table(table.get_ref(), "", &mut lines);
        let values = FileFormat::Toml
            .parse(Some(&origin), text)
            .map_err(|_| failure(&origin, "holds a number of more than 64 bits; quote it".to_owned()))?;
        let source = TomlSource { values };
        Ok(Self { origin, source, lines })
    }
}

/// Where each line of a text starts.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    fn line(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at) + 1
    }

    /// The lines of a table's keys, by their paths.
    fn of_table(&self, table: &DeTable<'_>, path: &str, lines: &mut BTreeMap<String, usize>) {
        for (key, value) in table {
            let path = below(path, key.get_ref());
            lines.insert(path.clone(), self.line(key.span().start));
            self.of_value(value.get_ref(), &path, lines);
        }
    }

    fn of_value(&self, value: &DeValue<'_>, path: &str, lines: &mut BTreeMap<String, usize>) {
        match value {
            DeValue::Table(table) => self.of_table(table, path, lines),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    lines.insert(path.clone(), self.line(item.span().start));
                    self.of_value(item.get_ref(), &path, lines);
                }
            }
            _ => {}
        }
    }
}

impl Source for TomlSource {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.values.clone())
    }
}

fn into_json(value: Value, path: &str, origins: &mut Origins) -> Json {
    // The crate names its environment source so.
    let origin = value.origin().map(|origin| if origin == "the environment" { ENVIRONMENT } else { origin });
    if let Some(origin) = origin {
        origins.insert(path, origin);
    }
    match value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(flag) => Json::Bool(flag),
        ValueKind::I64(number) => number.into(),
        ValueKind::U64(number) => number.into(),
        ValueKind::I128(number) => number.to_string().into(),
        ValueKind::U128(number) => number.to_string().into(),
        ValueKind::Float(number) => number.into(),
        ValueKind::String(text) => text.into(),
        ValueKind::Array(items) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| into_json(item, &format!("{path}[{index}]"), origins))
            .collect(),
        // In order of the names: the crate's tables have none, and messages and pipelines want one.
        ValueKind::Table(table) => table
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .map(|(key, item)| {
                let item = into_json(item, &below(path, &key), origins);
                (key, item)
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}
