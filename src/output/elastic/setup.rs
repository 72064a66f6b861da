//! What a cluster is prepared with: templates for the indices or the data stream that an output writes to.
//!
//! The files are those of `packaging/elastic`. A component template per format holds the mapping, an index template
//! applies it to what `index` names. Only indices that are made afterwards are changed by either.

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use thiserror::Error;

use super::cluster::{Cluster, Exchange};
use super::login::NoLogin;
use super::{Config, check_index};
use crate::batch::Request;
use crate::component::{BuildError, parse};
use crate::compress::Encoding;
use crate::format::FormatName;
use crate::output::OutputContext;
use crate::output::Verdict;
use crate::template::Template;

/// Which of the two servers: they spell the type of a field with unbounded keys differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Product {
    /// Elasticsearch
    Elasticsearch,
    /// OpenSearch, and Amazon's service of that name
    Opensearch,
}

/// What the output writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Indices, made when the first document comes.
    Index,
    /// A data stream.
    DataStream,
}

/// A request that prepares the cluster: `PUT path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Begins with a slash.
    pub path: String,
    /// JSON.
    pub body: String,
}

/// Why a cluster cannot be prepared. Holds no secret.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The credentials cannot be had.
    #[error("{0}")]
    Login(String),
    /// There is no answer, or a refusal.
    #[error("{act}: {said}")]
    Refused {
        /// What was tried.
        act: String,
        /// What came of it.
        said: String,
    },
    /// Neither product.
    #[error("the server does not say what it is: {said}; name it with --product")]
    Unknown {
        /// Its answer.
        said: String,
    },
}

/// Prepares the cluster of one output.
pub struct Setup {
    cluster: Cluster,
    format: FormatName,
    index: Template,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Setup").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Setup {
    /// Takes an output's own keys. Touches no network.
    ///
    /// # Errors
    /// [`BuildError`] of the key that is wrong.
    pub fn new(table: Value, context: OutputContext) -> Result<Self, BuildError> {
        let config: Config = parse(table)?;
        check_index(config.index.as_str())?;
        let cluster = Cluster::new(&config, context.http)?;
        Ok(Self { cluster, format: context.format, index: config.index })
    }

    /// What the name of the index tells: a data stream's holds no date.
    pub fn likely_target(&self) -> Target {
        if self.index.as_str().contains("{event_date}") { Target::Index } else { Target::DataStream }
    }

    /// The requests, in the order in which they must be made.
    ///
    /// # Errors
    /// [`BuildError`] if there is no mapping for the format, or if `index` begins with a place: the template would be one
    /// for all indices of the cluster.
    pub fn calls(&self, product: Product, target: Target) -> Result<[Call; 2], BuildError> {
        let (format, mapping) = match (self.format, product) {
            (FormatName::Canonical, Product::Elasticsearch) => {
                ("canonical", include_str!("../../../packaging/elastic/elasticsearch/canonical.json"))
            }
            (FormatName::Canonical, Product::Opensearch) => {
                ("canonical", include_str!("../../../packaging/elastic/opensearch/canonical.json"))
            }
            (FormatName::Ecs, Product::Elasticsearch) => {
                ("ecs", include_str!("../../../packaging/elastic/elasticsearch/ecs.json"))
            }
            (FormatName::Ecs, Product::Opensearch) => {
                ("ecs", include_str!("../../../packaging/elastic/opensearch/ecs.json"))
            }
            _ => {
                return Err(BuildError::new("format", "there are templates for canonical and ecs only"));
            }
        };
        let pattern = pattern(self.index.as_str());
        if pattern.starts_with('*') {
            let message = "begins with a place: a template for it would be one for all indices of the cluster; begin \
                           with a fixed text";
            return Err(BuildError::new("index", message));
        }
        let component = format!("databricks-audit-{format}");
        let skeleton = match target {
            Target::Index => include_str!("../../../packaging/elastic/index-template.json"),
            Target::DataStream => include_str!("../../../packaging/elastic/data-stream-template.json"),
        };
        let mut template: Value =
            serde_json::from_str(skeleton).map_err(|error| BuildError::new("", error))?;
        if let Some(template) = template.as_object_mut() {
            template.insert("index_patterns".to_owned(), vec![pattern.as_str()].into());
            template.insert("composed_of".to_owned(), vec![component.as_str()].into());
        }
        let name = pattern.replace('*', "");
        Ok([
            Call { path: format!("/_component_template/{component}"), body: mapping.trim_end().to_owned() },
            Call {
                path: format!("/_index_template/{}", name.trim_end_matches(['-', '_', '.'])),
                body: format!("{template:#}"),
            },
        ])
    }

    /// Asks the server which of the two it is.
    ///
    /// # Errors
    /// [`SetupError`] if it does not say so.
    pub async fn product(&self) -> Result<Product, SetupError> {
        let answer = self.ask(Method::GET, "/", "", "cannot ask the server what it is").await?;
        let about: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let version = about.get("version");
        let text = |key: &str| version.and_then(|version| version.get(key)).and_then(Value::as_str);
        match (text("distribution"), text("number")) {
            (Some("opensearch"), _) => Ok(Product::Opensearch),
            (None, Some(_)) => Ok(Product::Elasticsearch),
            _ => Err(SetupError::Unknown {
                said: String::from_utf8_lossy(&answer).chars().take(300).collect(),
            }),
        }
    }

    /// Makes one of the requests.
    ///
    /// # Errors
    /// [`SetupError`] with what the server says.
    pub async fn put(&self, call: &Call) -> Result<(), SetupError> {
        let act = format!("cannot put {}", call.path);
        self.ask(Method::PUT, &call.path, &call.body, &act).await.map(drop)
    }

    async fn ask(&self, method: Method, path: &str, body: &str, act: &str) -> Result<Bytes, SetupError> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let uncompressed_bytes = body.len();
        let request = Request { body, encoding: Encoding::None, events: 0, uncompressed_bytes };
        let called = self.cluster.call(method, path, "application/json", &request).await;
        let Exchange { answer, secrets } = called.map_err(|error| match error {
            NoLogin::Refused(said) | NoLogin::Unreachable(said) => SetupError::Login(said),
        })?;
        let refused = |said: Verdict| {
            let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
            let said = match said.redacted(&secrets) {
                Verdict::Hold(alarm) => alarm.message,
                Verdict::Retry { cause, .. } => cause,
                Verdict::Rejected(rejection) => rejection.reason,
                other => other.label().to_owned(),
            };
            SetupError::Refused { act: act.to_owned(), said }
        };
        match answer {
            Ok(answer) if answer.is_success() => Ok(answer.body),
            Ok(answer) => Err(refused(Verdict::from_status(&answer))),
            Err(failure) => Err(refused(failure.into())),
        }
    }
}

/// What all names have in common that a template for an index gives: `databricks-audit-*`.
fn pattern(template: &str) -> String {
    let mut pattern = String::new();
    for piece in template.split_inclusive('}') {
        match piece.split_once('{') {
            Some((fixed, _)) => {
                pattern.push_str(fixed);
                pattern.push('*');
            }
            None => pattern.push_str(piece),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::http::HttpSettings;

    fn setup(index: &str, format: FormatName) -> Setup {
        let context = OutputContext { name: "out".to_owned(), format, http: HttpSettings::default() };
        Setup::new(json!({"url": "https://es", "index": index}), context).unwrap()
    }

    fn template(index: &str, target: Target) -> (String, Value) {
        let [_, call] = setup(index, FormatName::Ecs).calls(Product::Elasticsearch, target).unwrap();
        (call.path, serde_json::from_str(&call.body).unwrap())
    }

    #[test]
    fn a_template_is_for_what_the_index_can_be_called() {
        for (index, pattern, name) in [
            ("databricks-audit-{event_date}", "databricks-audit-*", "databricks-audit"),
            ("a-{workspace_id}-{event_date}", "a-*-*", "a"),
            ("audit_{service_name}.v1", "audit_*.v1", "audit_.v1"),
            ("databricks-audit", "databricks-audit", "databricks-audit"),
        ] {
            let (path, body) = template(index, Target::Index);
            assert_eq!(body["index_patterns"], json!([pattern]));
            assert_eq!(path, format!("/_index_template/{name}"));
            assert_eq!(body["composed_of"], json!(["databricks-audit-ecs"]));
            assert_eq!(body.get("data_stream"), None);
        }
        let (_, stream) = template("databricks-audit", Target::DataStream);
        assert_eq!(stream["data_stream"], json!({}));
    }

    #[test]
    fn a_name_without_a_date_is_that_of_a_data_stream() {
        assert_eq!(setup("a-{event_date}", FormatName::Ecs).likely_target(), Target::Index);
        assert_eq!(setup("a", FormatName::Ecs).likely_target(), Target::DataStream);
    }

    #[test]
    fn no_template_is_made_for_all_indices_nor_for_a_format_without_one() {
        let of = |index, format| setup(index, format).calls(Product::Opensearch, Target::Index);
        assert_eq!(of("{service_name}-a", FormatName::Ecs).unwrap_err().key, "index");
        assert_eq!(of("a", FormatName::Raw).unwrap_err().key, "format");
    }

    #[test]
    fn the_two_products_differ_in_the_type_of_unbounded_keys_only() {
        for format in [FormatName::Canonical, FormatName::Ecs] {
            let mapping = |product| setup("a", format).calls(product, Target::Index).unwrap()[0].body.clone();
            let flattened = r#"{ "type": "flattened", "ignore_above": 7000, "depth_limit": 100 }"#;
            let elasticsearch = mapping(Product::Elasticsearch);
            assert_eq!(elasticsearch.matches(flattened).count(), 2);
            let translated = elasticsearch.replace(flattened, r#"{ "type": "flat_object" }"#);
            assert_eq!(translated, mapping(Product::Opensearch));
        }
    }
}
