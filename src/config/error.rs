//! What is wrong with a configuration: one line each, all of them at once.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::component::BuildError;

/// One thing wrong with the configuration. Prints as one line, whatever a key is called; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or `environment`.
    pub origin: String,
    /// Line of the file, where that is known; for a missing key that of its section.
    pub line: Option<usize>,
    /// Path of the key; empty for the file itself.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map_or(String::new(), |line| format!(":{line}"));
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        for character in format!("{}{line}: {key}{}", self.origin, self.message).chars() {
            match character.is_control() {
                true => write!(out, "{}", character.escape_default())?,
                false => write!(out, "{character}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong with the configuration: never empty, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

/// Which file, or the environment, each key came from, and the lines of the files.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    layers: Vec<String>,
    keys: BTreeMap<String, usize>,
    /// By layer and key.
    lines: BTreeMap<(usize, String), usize>,
}

impl Origins {
    pub(super) fn new(layers: Vec<String>) -> Self {
        Self { layers, ..Self::default() }
    }

    /// Notes the lines on which the keys of a layer stand.
    pub(super) fn insert_lines(&mut self, layer: usize, lines: BTreeMap<String, usize>) {
        self.lines.extend(lines.into_iter().map(|(key, line)| ((layer, key), line)));
    }

    pub(super) fn insert(&mut self, key: &str, origin: &str) {
        if let Some(rank) = self.layers.iter().position(|layer| layer == origin) {
            self.keys.insert(key.to_owned(), rank);
        }
    }

    /// How late the layer of a key is read: a later one wins.
    pub(super) fn rank(&self, key: &str) -> usize {
        self.found(key).unwrap_or(0)
    }

    /// Where a key stands; for one that is missing, where its neighbours stand.
    pub(super) fn find(&self, key: &str) -> &str {
        self.layers.get(self.nearest(key)).map_or("configuration", String::as_str)
    }

    /// The line a key stands on; for one that is missing, that of its section.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let layer = self.nearest(key);
        upwards(key).find_map(|key| self.lines.get(&(layer, key.to_owned())).copied())
    }

    fn nearest(&self, key: &str) -> usize {
        upwards(key).find_map(|key| self.found(key)).unwrap_or(0)
    }

    /// Whether this layer alone says anything of a table.
    pub(super) fn stands_only_in(&self, layer: &str, table: &str) -> bool {
        let layer = self.layers.iter().position(|known| known == layer);
        let inside = |name: &str| name.strip_prefix(table).is_some_and(|rest| rest.starts_with(['.', '[']));
        let mut ranks = self.keys.iter().filter(|(name, _)| inside(name)).map(|(_, rank)| *rank).peekable();
        ranks.peek().is_some() && ranks.all(|rank| Some(rank) == layer)
    }

    /// The layer of a value, or of a table: that of its `type`, else that of its first key.
    fn found(&self, key: &str) -> Option<usize> {
        let below = || {
            let inside =
                |name: &&String| name.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
            self.keys.range(key.to_owned()..).find(|(name, _)| inside(name)).map(|(_, rank)| *rank)
        };
        self.keys.get(key).or_else(|| self.keys.get(&format!("{key}.type"))).copied().or_else(below)
    }
}

/// A key, and those that it stands below.
fn upwards(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| key.get(..key.rfind(['.', '['])?))
}

/// Gathers what is wrong, with the place it stands in.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) origins: Origins,
    pub(super) errors: Vec<ConfigError>,
}

impl Report {
    pub(super) fn new(origins: Origins) -> Self {
        Self { origins, errors: Vec::new() }
    }

    pub(super) fn error(&mut self, key: &str, message: impl fmt::Display) {
        let error = located(&self.origins, key, message);
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Reads a table whole; after an error the key to blame is taken out and the rest read again, so that every error
    /// is found. What is then missing is only a consequence and not reported.
    pub(super) fn each<T>(
        &mut self,
        mut table: Value,
        path: &str,
        read: impl Fn(Value) -> Result<T, BuildError>,
    ) -> Option<T> {
        let mut whole = !self.names(path);
        loop {
            let error = match read(table.clone()) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let stood = take(&mut table, &error.key);
            let at = below(path, &error.key);
            if (whole || stood) && !self.names(&at) {
                self.error(&at, &error.message);
            }
            if !stood {
                return None;
            }
            whole = false;
        }
    }

    /// True if something is wrong with this key or with one below it.
    pub(super) fn names(&self, key: &str) -> bool {
        self.errors.iter().any(|error| {
            let below = |rest: &str| key.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']);
            error.key.strip_prefix(key).is_some_and(below)
        })
    }
}

/// The error of a key, with where it stands, on one line.
pub(super) fn located(origins: &Origins, key: &str, message: impl fmt::Display) -> ConfigError {
    let message = message.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    ConfigError {
        origin: origins.find(key).to_owned(),
        line: origins.line(key),
        key: key.to_owned(),
        message,
    }
}

/// Takes a key out of a table, together with the list it is in; false if it is not there.
fn take(table: &mut Value, key: &str) -> bool {
    let Some(table) = table.as_object_mut() else { return false };
    let key = key.split('[').next().unwrap_or_default();
    if table.remove(key).is_some() {
        return true;
    }
    key.split_once('.')
        .is_some_and(|(first, rest)| table.get_mut(first).is_some_and(|nested| take(nested, rest)))
}

/// The path of a key below another.
pub(super) fn below(path: &str, key: &str) -> String {
    match (path.is_empty(), key.is_empty()) {
        (true, _) => key.to_owned(),
        (_, true) => path.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_is_looked_for_where_the_type_of_its_table_stands() {
        let mut origins = Origins::new(vec!["a.toml".to_owned(), "b.toml".to_owned()]);
        origins.insert("outputs.splunk.type", "b.toml");
        origins.insert("outputs.splunk.index", "a.toml");
        origins.insert("outputs.splunk2.index", "a.toml");
        assert_eq!(origins.find("outputs.splunk.index"), "a.toml");
        assert_eq!(origins.find("outputs.splunk.token"), "b.toml");
        assert_eq!(origins.find("outputs.splunk2"), "a.toml");
        assert_eq!(origins.find("nowhere"), "a.toml");
    }

    #[test]
    fn what_is_missing_because_it_was_taken_out_is_not_reported() {
        let mut report = Report::default();
        let read = |table: Value| match (table.get("a"), table.get("b")) {
            (Some(_), _) => Err(BuildError::new("a", "is wrong")),
            (None, Some(_)) => Err(BuildError::new("b", "is wrong too")),
            (None, None) => Err(BuildError::new("c", "is missing without a")),
        };
        assert_eq!(report.each(serde_json::json!({ "a": 1, "b": 2 }), "x", read), None::<()>);
        let keys: Vec<_> = report.errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["x.a", "x.b"]);
    }
}
