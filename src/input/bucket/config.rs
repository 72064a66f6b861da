//! The configuration of the bucket input.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::layout::{Layout, LayoutName};
use super::store;
use crate::component::{self, BuildError};
use crate::decode::Gaps;
use crate::time::Date;
use crate::units::{ByteSize, Period};

/// Configuration of the bucket input.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where the objects are: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:///directory`
    /// or the path of a local directory (a relative one starts where auditferry was started).
    pub(super) url: String,
    /// How the objects are laid out below the URL.
    #[serde(default)]
    pub(super) layout: LayoutName,
    /// How often the open dates are listed. Costs one LIST request per workspace and open date each time; local
    /// directories are watched besides.
    #[serde(default = "defaults::poll_interval")]
    pub(super) poll_interval: Period,
    /// Layout `any`: which objects below the URL, for instance `**/*.json`. Default: all.
    #[serde(default)]
    pub(super) glob: Option<String>,
    /// Only these workspaces. Default: all, `0` (account level) included.
    #[serde(default)]
    pub(super) workspaces: Vec<String>,
    /// All workspaces but these.
    #[serde(default)]
    pub(super) exclude_workspaces: Vec<String>,
    /// First `date=` folder to read, as `yyyy-mm-dd`. Default: all there are.
    #[serde(default)]
    pub(super) start_date: Option<String>,
    /// How many days, today included, are listed at every poll.
    #[serde(default = "defaults::open_dates")]
    pub(super) open_dates: u32,
    /// How many days back closed dates are listed daily, for late data; older ones are listed weekly. Fingerprints of
    /// shipped lines are kept for as long.
    #[serde(default = "defaults::look_back_days")]
    pub(super) look_back_days: u32,
    /// How many objects are read at once, 1 to 64.
    #[serde(default = "defaults::concurrency")]
    pub(super) concurrency: usize,
    /// Objects up to this size are read whole and compared line by line at every change; larger ones are read from
    /// where they were left if the 64 KiB before it are unchanged.
    #[serde(default = "defaults::verify_whole_below")]
    pub(super) verify_whole_below: ByteSize,
    /// Read each object whole once more when its date closes, and ship any line that is still missing.
    #[serde(default)]
    pub(super) verify_on_close: bool,
    /// Longest line that is shipped; a longer one becomes a dead letter with its beginning. At most 1GiB.
    #[serde(default = "defaults::max_line_bytes")]
    pub(super) max_line_bytes: ByteSize,
    /// Local directories: how long a last line without its line end may stay incomplete before it is taken as it is.
    #[serde(default = "defaults::partial_line_wait")]
    pub(super) partial_line_wait: Period,
    /// Local directories: notice changes at once by file-system events. Turn it off where the directory is a network
    /// file system that has none.
    #[serde(default = "defaults::watch")]
    pub(super) watch: bool,
    /// Databricks account of records that name none, as those of Azure do. Default: their `account_id` stays null.
    #[serde(default)]
    pub(super) account_id: Option<String>,
    /// Workspace id by the Azure resource id of the workspace, for records that name only that:
    /// `{ "/subscriptions/…/workspaces/prod" = "7405611902334455" }`. Upper and lower case are alike.
    #[serde(default)]
    pub(super) workspace_ids: BTreeMap<String, String>,
    /// S3: region, endpoint and credentials.
    #[serde(default)]
    pub(super) s3: store::S3Settings,
    /// Google Cloud Storage: credentials.
    #[serde(default)]
    pub(super) gcs: store::GcsSettings,
    /// Azure Blob Storage: account and credentials.
    #[serde(default)]
    pub(super) azure: store::AzureSettings,
}

mod defaults {
    use std::time::Duration;

    use crate::units::{ByteSize, Period};

    pub(super) fn poll_interval() -> Period {
        Period(Duration::from_secs(60))
    }
    pub(super) fn open_dates() -> u32 {
        2
    }
    pub(super) fn look_back_days() -> u32 {
        7
    }
    pub(super) fn concurrency() -> usize {
        8
    }
    pub(super) fn verify_whole_below() -> ByteSize {
        ByteSize(256 << 10)
    }
    pub(super) fn max_line_bytes() -> ByteSize {
        ByteSize(16 << 20)
    }
    pub(super) fn partial_line_wait() -> Period {
        Period(Duration::from_secs(300))
    }
    pub(super) fn watch() -> bool {
        true
    }
}

/// A configuration whose values fit.
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) layout: Layout,
}

pub(super) fn parse(table: Value) -> Result<Checked, BuildError> {
    let config: Config = component::parse(table)?;
    let positive = |key: &str, holds: bool, allowed: &str| {
        if holds { Ok(()) } else { Err(BuildError::new(key, format!("must be {allowed}"))) }
    };
    positive("poll_interval", config.poll_interval.0 >= Duration::from_secs(1), "at least \"1s\"")?;
    positive("concurrency", (1..=64).contains(&config.concurrency), "1 to 64")?;
    positive("open_dates", (1..=366).contains(&config.open_dates), "1 to 366")?;
    positive("max_line_bytes", (1024..=1 << 30).contains(&config.max_line_bytes.0), "1KiB to 1GiB")?;
    let start_date = match &config.start_date {
        None => None,
        Some(text) => Some(Date::parse(text).ok_or_else(|| {
            BuildError::new("start_date", format!("`{text}` is not a date; write it as \"2026-01-31\""))
        })?),
    };
    let layout = match config.layout {
        LayoutName::DatabricksDelivery => {
            positive("glob", config.glob.is_none(), "left out with layout = \"databricks_delivery\"")?;
            Layout::DatabricksDelivery {
                workspaces: config.workspaces.clone(),
                exclude_workspaces: config.exclude_workspaces.clone(),
                start_date,
            }
        }
        LayoutName::Any => {
            let filters =
                config.workspaces.is_empty() && config.exclude_workspaces.is_empty() && start_date.is_none();
            positive("layout", filters, "\"databricks_delivery\" where workspaces or start_date are given")?;
            let glob = config.glob.as_deref().map(globset::Glob::new).transpose();
            let glob = glob.map_err(|error| BuildError::new("glob", error.kind()))?;
            Layout::Any { glob: glob.map(|glob| glob.compile_matcher()) }
        }
    };
    Ok(Checked { config, layout })
}

/// What the configuration says in place of the records.
pub(super) fn gaps(table: &Value) -> Gaps {
    // A table that does not parse was refused before anything is built from it.
    let Ok(Checked { config, .. }) = parse(table.clone()) else { return Gaps::default() };
    let lower = |(resource, id): (String, String)| (resource.to_ascii_lowercase(), id);
    Gaps {
        account_id: config.account_id,
        workspace_ids: config.workspace_ids.into_iter().map(lower).collect(),
    }
}
