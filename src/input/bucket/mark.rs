//! The mark of a complete pass, in the state: whoever starts with it looks at what is open or due, not at everything.

use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::config::Config;
use super::store::Store;
use crate::chunk::Position;
use crate::time::Millis;

/// Where the mark is kept. Not a key any store could have: no part of a key is empty.
pub(super) const PARTITION: &str = "//pass";

/// Everything was looked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Beginning of the pass.
    pub(super) began: Millis,
    /// What everything was.
    pub(super) scope: Scope,
}

impl Mark {
    /// Reads a mark. That of an earlier release, which does not tell its scope, is none: to look at everything once costs
    /// a listing, and a date that was never looked at could wait for a week.
    pub(super) fn parse(position: &Position) -> Option<Self> {
        let (began, scope) = position.as_str().split_once(' ')?;
        let scope = Scope(u64::from_str_radix(scope, 16).ok()?);
        Some(Self { began: Millis::new(began.parse().ok()?)?, scope })
    }

    pub(super) fn encode(&self) -> Position {
        Position::new(&format!("{} {:016x}", self.began.get(), self.scope.0))
    }
}

/// Digest of what a pass looks at: the store, and what of it the configuration lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope(u64);

impl Scope {
    /// That of a configuration, whose URL and credentials opened this store.
    pub(super) fn new(config: &Config, store: &Store) -> Self {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names
        };
        let scope = json!({
            // Bucket, container and account, or the directory, whatever named them.
            "store": store.store.to_string(),
            "endpoints": [config.s3.endpoint, config.gcs.endpoint, config.azure.endpoint],
            "prefix": store.prefix.as_ref(),
            "layout": config.layout,
            "glob": config.glob,
            "containers": sorted(&config.containers),
            "workspaces": sorted(&config.workspaces),
            "exclude_workspaces": sorted(&config.exclude_workspaces),
            "start_date": config.start_date,
        });
        Self(xxh3_64(scope.to_string().as_bytes()))
    }
}

/// A pass that came to its end, and is complete once all it found is committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct UncommittedPass {
    pub(super) began: Millis,
    /// How many objects had been opened by then: what hints open afterwards may keep coming without end.
    pub(super) opened: u64,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use serde_json::Value;

    use super::super::config::parse;
    use super::super::store::Scheme;
    use super::*;

    fn scope(settings: &Value, store: Arc<dyn ObjectStore>, prefix: &str) -> Scope {
        let mut table = json!({ "url": "s3://memory/logs" });
        let settings = settings.as_object().unwrap().clone();
        table.as_object_mut().unwrap().extend(settings);
        let store = Store { store, prefix: Path::from(prefix), scheme: Scheme::S3, root: None, cloud: None };
        Scope::new(&parse(table).unwrap().config, &store)
    }

    #[test]
    fn a_mark_is_of_one_store_and_of_what_the_filters_let_through() {
        let memory = || Arc::new(InMemory::new()) as Arc<dyn ObjectStore>;
        let of = |settings: Value| scope(&settings, memory(), "logs");
        let first = of(json!({}));
        for same in
            [json!({ "poll_interval": "1h", "open_dates": 5 }), json!({ "s3": { "region": "eu-west-1" } })]
        {
            assert_eq!(of(same), first);
        }
        for other in [
            json!({ "start_date": "2026-01-01" }),
            json!({ "workspaces": ["1"] }),
            json!({ "exclude_workspaces": ["1"] }),
            json!({ "layout": "any" }),
            json!({ "layout": "any", "glob": "**/*.json" }),
            json!({ "layout": "azure_diagnostic" }),
            json!({ "layout": "azure_diagnostic", "containers": ["insights-logs-jobs"] }),
            json!({ "s3": { "endpoint": "https://other.example" } }),
        ] {
            assert_ne!(of(other.clone()), first, "{other}");
        }
        assert_eq!(of(json!({ "workspaces": ["1", "2"] })), of(json!({ "workspaces": ["2", "1"] })));
        assert_ne!(scope(&json!({}), memory(), "other"), first);
        let directory = tempfile::tempdir().unwrap();
        let local = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
        assert_ne!(scope(&json!({}), local, "logs"), first);
    }

    #[test]
    fn a_mark_survives_being_written_and_one_of_an_earlier_release_is_none() {
        let mark = Mark { began: Millis::new(1_767_614_400_000).unwrap(), scope: Scope(0xab) };
        assert_eq!(mark.encode().as_str(), "1767614400000 00000000000000ab");
        assert_eq!(Mark::parse(&mark.encode()), Some(mark));
        for text in ["", "1767614400000", "1767614400000 ", "1767614400000 x", "x ab"] {
            assert_eq!(Mark::parse(&Position::new(text)), None, "{text}");
        }
    }
}
