//! The configuration of the bucket input.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::azure_path::Containers;
use super::layout::{Layout, LayoutName};
use super::schedule::{Open, Schedule};
use super::store;
use crate::component::{self, BuildError};
use crate::decode::Gaps;
use crate::http::{HttpSettings, TlsSettings};
use crate::time::Date;
use crate::units::{ByteSize, Period};

/// Configuration of the bucket input. Without `Debug`: the address of a proxy may hold a password.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where the objects are: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:///directory`
    /// or the path of a local directory (a relative one starts where auditferry was started). With the layouts of
    /// Azure, `az://account` names the storage account; any other URL holds its containers as folders.
    pub(super) url: String,
    /// How the objects are laid out below the URL.
    #[serde(default)]
    pub(super) layout: LayoutName,
    /// How often the open dates are listed, at least 1s. Costs one LIST request per workspace each time, and one more for
    /// each 1000 objects (with the layouts of Azure: one per workspace, container and open date); local directories are
    /// watched besides.
    #[serde(default = "defaults::poll_interval")]
    pub(super) poll_interval: Period,
    /// Layout `any`: which objects below the URL, for instance `**/*.json`. Default: all.
    #[serde(default)]
    pub(super) glob: Option<String>,
    /// Layouts of Azure: only these containers, for instance `["insights-logs-jobs"]`. Default: all of the account that
    /// begin with `insights-logs-` (`azure_diagnostic`) or `am-databricks` (`log_analytics_export`); finding them takes
    /// the right to list the containers of the account, named ones do not.
    #[serde(default)]
    pub(super) containers: Vec<String>,
    /// Layout `databricks_delivery`: only these workspaces. Default: all, `0` (account level) included.
    #[serde(default)]
    pub(super) workspaces: Vec<String>,
    /// All workspaces but these.
    #[serde(default)]
    pub(super) exclude_workspaces: Vec<String>,
    /// First date whose folders are read, as `yyyy-mm-dd`. Default: all there are.
    #[serde(default)]
    pub(super) start_date: Option<String>,
    /// Layout `databricks_delivery`: how many days, today included, are listed at every poll. Default: 2.
    #[serde(default)]
    #[schemars(extend("default" = 2))]
    pub(super) open_dates: Option<u32>,
    /// Layouts of Azure: the dates of how many hours, the present one included, are listed at every poll. Default: 3
    /// with `azure_diagnostic`, whose blobs are those of the hour in which a record was received; 13 with
    /// `log_analytics_export`, which tries for 12 hours to deliver a record into the folder of its own time.
    #[serde(default)]
    #[schemars(extend("default" = 3))]
    pub(super) open_hours: Option<u32>,
    /// How many days back closed dates are listed daily, for late data; older ones are listed weekly. Fingerprints of
    /// shipped lines are kept for as long. Default: 7; 2 with `azure_diagnostic`, where nothing comes late.
    #[serde(default)]
    #[schemars(extend("default" = 7))]
    pub(super) look_back_days: Option<u32>,
    /// How many objects are read at once, 1 to 64; of a directory, and while the pipeline keeps up with no more, at most two
    /// for each core.
    #[serde(default = "defaults::concurrency")]
    pub(super) concurrency: usize,
    /// Objects up to this size are read whole and compared line by line at every change; larger ones are read from
    /// where they were left if the 64 KiB before it are unchanged. Default: 256KiB; 0 with the layouts of Azure, whose
    /// blobs are only ever appended to.
    #[serde(default)]
    #[schemars(extend("default" = "256KiB"))]
    pub(super) verify_whole_below: Option<ByteSize>,
    /// Read each object whole once more when its date closes, and ship any line that is still missing.
    #[serde(default)]
    pub(super) verify_on_close: bool,
    /// Longest line that is shipped; a longer one becomes a dead letter with its beginning. At most 1GiB.
    #[serde(default = "defaults::max_line_bytes")]
    pub(super) max_line_bytes: ByteSize,
    /// Local directories and layouts of Azure: how long a last line without its line end may stay incomplete before it
    /// is taken as it is, counted from the object's last change and, in Azure, from the end of its hour. Default: 5m;
    /// 1h with the layouts of Azure.
    #[serde(default)]
    #[schemars(extend("default" = "5m"))]
    pub(super) partial_line_wait: Option<Period>,
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
    /// TLS of the connections to the store.
    #[serde(default)]
    pub(super) tls: TlsSettings,
    /// Proxy to the store, as `http://[user:password@]host:port`. Default: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of
    /// the environment; `"none"` goes direct. Metadata services are asked directly; an SQS queue and AWS's sign-in take the
    /// environment's.
    #[serde(default)]
    pub(super) proxy: Option<String>,
    /// File of the authority of an https:// proxy, or of one that looks into TLS, in PEM. It is trusted besides the system's
    /// and `tls.ca_file`. Default: none.
    #[serde(default)]
    pub(super) proxy_ca_file: Option<PathBuf>,
    /// Hosts that `proxy` is not used for: names, which stand for their subdomains too, addresses and networks, with
    /// commas. Default: `NO_PROXY` of the environment.
    #[serde(default)]
    pub(super) no_proxy: Option<String>,
}

impl Config {
    /// How the connections to the store are made.
    pub(super) fn http(&self) -> HttpSettings {
        HttpSettings {
            tls: self.tls.clone(),
            proxy: self.proxy.clone(),
            proxy_ca_file: self.proxy_ca_file.clone(),
            no_proxy: self.no_proxy.clone(),
            ..HttpSettings::default()
        }
    }

    /// The configured workspace ids by resource id in lower case.
    pub(super) fn resources(&self) -> HashMap<String, String> {
        let ids = self.workspace_ids.iter();
        ids.map(|(resource, id)| (resource.to_ascii_lowercase(), id.clone())).collect()
    }
}

mod defaults {
    use std::time::Duration;

    use crate::units::{ByteSize, Period};

    pub(super) fn poll_interval() -> Period {
        Period(Duration::from_secs(60))
    }
    pub(super) fn concurrency() -> usize {
        8
    }
    pub(super) fn max_line_bytes() -> ByteSize {
        ByteSize(16 << 20)
    }
    pub(super) fn watch() -> bool {
        true
    }
}

/// A configuration whose values fit.
pub(super) struct Checked {
    pub(super) config: Config,
    pub(super) layout: Layout,
    pub(super) schedule: Schedule,
    pub(super) verify_whole_below: u64,
    pub(super) partial_line_wait: Duration,
}

/// What a layout takes where the configuration says nothing.
struct Defaults {
    open: Open,
    look_back_days: u32,
    verify_whole_below: u64,
    partial_line_wait: Duration,
}

impl Defaults {
    fn of(layout: LayoutName) -> Self {
        let azure = |hours, look_back_days| Self {
            open: Open::Hours(hours),
            look_back_days,
            verify_whole_below: 0,
            partial_line_wait: Duration::from_secs(3600),
        };
        match layout {
            LayoutName::AzureDiagnostic => azure(3, 2),
            LayoutName::LogAnalyticsExport => azure(13, 7),
            LayoutName::DatabricksDelivery | LayoutName::Any => Self {
                open: Open::Dates(2),
                look_back_days: 7,
                verify_whole_below: 256 << 10,
                partial_line_wait: Duration::from_secs(300),
            },
        }
    }
}

impl Config {
    /// What of the bucket is read, where that is not all of it: what is left out by mistake is missed by nobody else.
    pub(super) fn chosen(&self) -> String {
        let list = |what: &str, names: &[String]| match names {
            [] => String::new(),
            names => format!(", {what} {}", names.join(" ")),
        };
        let of = |what: &str, value: &Option<String>| list(what, value.as_slice());
        list("only workspaces", &self.workspaces)
            + &list("not workspaces", &self.exclude_workspaces)
            + &list("containers", &self.containers)
            + &of("objects", &self.glob)
            + &of("from", &self.start_date)
    }
}

pub(super) fn parse(table: Value) -> Result<Checked, BuildError> {
    let config: Config = component::parse(table)?;
    let positive = |key: &str, holds: bool, allowed: &str| {
        if holds { Ok(()) } else { Err(BuildError::new(key, format!("must be {allowed}"))) }
    };
    positive("poll_interval", config.poll_interval.0 >= Duration::from_secs(1), "at least \"1s\"")?;
    positive("concurrency", (1..=64).contains(&config.concurrency), "1 to 64")?;
    positive("open_dates", config.open_dates.is_none_or(|dates| (1..=366).contains(&dates)), "1 to 366")?;
    positive("open_hours", config.open_hours.is_none_or(|hours| (1..=720).contains(&hours)), "1 to 720")?;
    positive("max_line_bytes", (1024..=1 << 30).contains(&config.max_line_bytes.0), "1KiB to 1GiB")?;
    let start_date = match &config.start_date {
        None => None,
        Some(text) => Some(Date::parse(text).ok_or_else(|| {
            BuildError::new("start_date", format!("`{text}` is not a date; write it as \"2026-01-31\""))
        })?),
    };
    let azure = config.layout.azure();
    let named = serde_json::to_value(config.layout).unwrap_or_default();
    let left_out = |key: &str, given: bool| {
        let message = format!("does nothing with layout = {named}; leave it out");
        if given { Err(BuildError::new(key, message)) } else { Ok(()) }
    };
    left_out("glob", config.glob.is_some() && config.layout != LayoutName::Any)?;
    left_out("containers", !config.containers.is_empty() && azure.is_none())?;
    left_out("open_hours", config.open_hours.is_some() && azure.is_none())?;
    left_out("open_dates", config.open_dates.is_some() && azure.is_some())?;
    left_out("workspaces", !config.workspaces.is_empty() && azure.is_some())?;
    left_out("exclude_workspaces", !config.exclude_workspaces.is_empty() && azure.is_some())?;
    for (key, ids) in [("workspaces", &config.workspaces), ("exclude_workspaces", &config.exclude_workspaces)]
    {
        if let Some(name) =
            ids.iter().find(|id| id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()))
        {
            let message =
                format!("`{name}` is no workspace id; write the digits behind workspaceId= in the bucket");
            return Err(BuildError::new(key, message));
        }
    }
    let layout = match (azure, config.layout) {
        (Some(layout), _) => {
            Layout::Azure { containers: Containers { layout, named: config.containers.clone() }, start_date }
        }
        (None, LayoutName::Any) => {
            let filters =
                config.workspaces.is_empty() && config.exclude_workspaces.is_empty() && start_date.is_none();
            positive("layout", filters, "\"databricks_delivery\" where workspaces or start_date are given")?;
            let glob = config.glob.as_deref().map(globset::Glob::new).transpose();
            let glob = glob.map_err(|error| BuildError::new("glob", error.kind()))?;
            Layout::Any { glob: glob.map(|glob| glob.compile_matcher()) }
        }
        (None, _) => Layout::DatabricksDelivery {
            workspaces: config.workspaces.clone(),
            exclude_workspaces: config.exclude_workspaces.clone(),
            start_date,
        },
    };
    let defaults = Defaults::of(config.layout);
    let open = match defaults.open {
        Open::Dates(dates) => Open::Dates(config.open_dates.unwrap_or(dates)),
        Open::Hours(hours) => Open::Hours(config.open_hours.unwrap_or(hours)),
    };
    let look_back_days = config.look_back_days.unwrap_or(defaults.look_back_days);
    Ok(Checked {
        layout,
        schedule: Schedule { open, look_back_days },
        verify_whole_below: config.verify_whole_below.map_or(defaults.verify_whole_below, |bytes| bytes.0),
        partial_line_wait: config.partial_line_wait.map_or(defaults.partial_line_wait, |wait| wait.0),
        config,
    })
}

/// What the configuration says in place of the records.
pub(super) fn gaps(table: &Value) -> Gaps {
    // A table that does not parse was refused before anything is built from it.
    let Ok(Checked { config, .. }) = parse(table.clone()) else { return Gaps::default() };
    Gaps { workspace_ids: config.resources(), account_id: config.account_id }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_is_told() {
        let told = |keys: Value| {
            let mut table = json!({ "url": "." });
            table.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            let told = (crate::input::bucket::KIND.check)(table).unwrap();
            told.strip_prefix("., layout ").unwrap().strip_suffix(", polled every 1m").unwrap().to_owned()
        };
        assert_eq!(told(json!({})), "databricks_delivery");
        assert_eq!(
            told(
                json!({ "workspaces": ["1", "2"], "exclude_workspaces": ["2"], "start_date": "2026-01-01" })
            ),
            "databricks_delivery, only workspaces 1 2, not workspaces 2, from 2026-01-01"
        );
        assert_eq!(told(json!({ "layout": "any", "glob": "**/*.json" })), "any, objects **/*.json");
    }

    #[test]
    fn a_workspace_is_chosen_by_its_id_and_not_by_its_name() {
        for key in ["workspaces", "exclude_workspaces"] {
            for (id, fits) in [("3216387119832566", true), ("0", true), ("prod", false), ("", false)] {
                let parsed = parse(json!({ "url": "s3://acme-audit/logs", key: [id] }));
                let told = format!(
                    "{key}: `{id}` is no workspace id; write the digits behind workspaceId= in the bucket"
                );
                assert_eq!(parsed.err().map(|error| error.to_string()), (!fits).then_some(told));
            }
        }
    }
}
