//! What is taken out of events before they leave.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::redact::{Redactor, check_name};
use crate::secret::Secret;

/// `redaction`: secrets that somebody typed into a command or a parameter are replaced by `[redacted:…]` before an
/// event leaves. Equal secrets get equal marks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redaction {
    /// Whether secrets are looked for: tokens of Databricks, GitHub, GitLab, Slack, Google and others, JSON web tokens,
    /// private keys, passwords in URLs, and the values of names like `password`, `client_secret` or `AccountKey`. Ids,
    /// names, and what Databricks has hashed (`tokenId`) stay.
    pub enabled: bool,
    /// Further names whose values are secrets, for instance `["pin", "customerNumber"]`. Upper and lower case, `_`, `-`
    /// and `.` make no difference.
    #[serde(deserialize_with = "names")]
    pub names: Vec<String>,
    /// Further secrets as regular expressions; where one has a group, only what the group matches is taken out. A match
    /// that holds a quote or a backslash is left alone. Each pattern costs CPU time for every record.
    pub patterns: Vec<String>,
    /// Key of the marks. Default: a random one, made at the first start and kept in `redaction.key` below `state_dir`.
    /// Give several instances the same key if their marks are to be compared.
    pub key: Option<Secret>,
}

fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    names.iter().try_for_each(|name| check_name(name)).map_err(D::Error::custom)?;
    Ok(names)
}

impl Default for Redaction {
    fn default() -> Self {
        Self { enabled: true, names: Vec::new(), patterns: Vec::new(), key: None }
    }
}

impl Redaction {
    /// What finds the secrets, with this key for the marks.
    ///
    /// # Errors
    /// What is wrong with `names` or `patterns`.
    pub fn redactor(&self, key: &[u8]) -> Result<Redactor, String> {
        Redactor::new(key, &self.names, &self.patterns)
    }
}
