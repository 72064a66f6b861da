//! Layouts: what the paths of a bucket mean.

use std::sync::Arc;

use globset::GlobMatcher;
use object_store::path::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::azure_path::{AzureLayout, Containers, date_below};
use crate::chunk::Origin;
use crate::time::{Date, Millis};

/// How objects are laid out below the URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum LayoutName {
    /// `workspaceId=<id>/date=<yyyy-mm-dd>/auditlogs_<id>.json`, as Databricks delivers on AWS and GCP.
    #[default]
    DatabricksDelivery,
    /// `insights-logs-<category>/resourceId=…/y=/m=/d=/h=/m=00/PT1H.json`, as a diagnostic setting writes to an Azure
    /// storage account: `az://<account>`, or a directory that holds its containers.
    AzureDiagnostic,
    /// `am-databricks…/WorkspaceResourceId=…/y=/m=/d=/h=/m=/PT05M.json`, as a Log Analytics data export writes to an
    /// Azure storage account: `az://<account>`, or a directory that holds its containers.
    LogAnalyticsExport,
    /// Any objects below the URL, chosen by `glob`.
    Any,
}

impl LayoutName {
    /// The layout of blobs that Azure appends to, in several containers.
    pub(super) fn azure(self) -> Option<AzureLayout> {
        match self {
            Self::AzureDiagnostic => Some(AzureLayout::Diagnostic),
            Self::LogAnalyticsExport => Some(AzureLayout::LogAnalytics),
            Self::DatabricksDelivery | Self::Any => None,
        }
    }
}

/// A layout with its filters.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    DatabricksDelivery { workspaces: Vec<String>, exclude_workspaces: Vec<String>, start_date: Option<Date> },
    Azure { containers: Containers, start_date: Option<Date> },
    Any { glob: Option<GlobMatcher> },
}

/// What a path says of its object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) workspace: Option<Arc<str>>,
    pub(super) date: Option<Date>,
    /// End of the hour that a blob of Azure is written in.
    pub(super) until: Option<Millis>,
    /// Resource id of the workspace in lower case, where the path is Azure's and names it.
    pub(super) resource: Option<Arc<str>>,
}

impl Layout {
    /// True if there are several containers, of which one may be closed to us and the others open.
    pub(super) fn is_several(&self) -> bool {
        matches!(self, Self::Azure { .. })
    }

    /// True if objects may be documents of records: old blobs of diagnostic settings.
    pub(super) fn has_documents(&self) -> bool {
        matches!(self, Self::Azure { containers, .. } if containers.layout == AzureLayout::Diagnostic)
    }

    /// True for a workspace the filters let through.
    pub(super) fn wants_workspace(&self, workspace: &str) -> bool {
        match self {
            Self::DatabricksDelivery { workspaces, exclude_workspaces, .. } => {
                (workspaces.is_empty() || workspaces.iter().any(|wanted| wanted == workspace))
                    && !exclude_workspaces.iter().any(|excluded| excluded == workspace)
            }
            Self::Azure { .. } | Self::Any { .. } => true,
        }
    }

    /// True for a date the filters let through.
    pub(super) fn wants_date(&self, date: Date) -> bool {
        self.start_date().is_none_or(|start| date >= start)
    }

    /// The first date the filters let through, if there is one.
    pub(super) fn start_date(&self) -> Option<Date> {
        match self {
            Self::DatabricksDelivery { start_date, .. } | Self::Azure { start_date, .. } => *start_date,
            Self::Any { .. } => None,
        }
    }

    /// What the path below the prefix says; `None` for an object that is none of ours.
    pub(super) fn place(&self, prefix: &Path, key: &Path) -> Option<Place> {
        let below = below(prefix, key)?;
        let name = below.rsplit('/').next().unwrap_or_default();
        if name.starts_with(['.', '_']) {
            // Half-written files of sync tools, markers of Spark.
            return None;
        }
        match self {
            Self::DatabricksDelivery { .. } => {
                let mut parts = below.split('/');
                let workspace = workspace_of(parts.next()?)?;
                let date = date_of(parts.next()?)?;
                let wanted =
                    self.wants_workspace(workspace) && self.wants_date(date) && name.contains(".json");
                wanted.then(|| Place {
                    workspace: Some(workspace.into()),
                    date: Some(date),
                    ..Place::default()
                })
            }
            Self::Azure { containers, .. } => {
                let place = containers.place(&below)?;
                place.date.is_some_and(|date| self.wants_date(date)).then_some(place)
            }
            Self::Any { glob } => {
                let wanted = glob.as_ref().is_none_or(|glob| glob.is_match(&below));
                let workspace = below.split('/').find_map(workspace_of).map(Arc::from);
                let date = below.split('/').find_map(date_of);
                wanted.then(|| Place { workspace, date, ..Place::default() })
            }
        }
    }

    /// The origin of an object's records.
    pub(super) fn origin(key: &Path, place: &Place, cloud: Option<&'static str>) -> Arc<Origin> {
        Arc::new(Origin {
            workspace: place.workspace.clone(),
            date: place.date,
            cloud,
            ..Origin::of_object(key.as_ref())
        })
    }
}

/// True for a folder of the state whose objects an input with this first date never looks at: every date that its path names
/// lies before, and it names one. Where the prefix ends need not be known.
pub(super) fn is_before(start: Date, folder: &str) -> bool {
    let parts = folder.match_indices('/').map(|(slash, _)| slash + 1);
    let parts = std::iter::once(0).chain(parts).filter_map(|at| folder.get(at..));
    let first = |rest: &str| rest.split('/').next().and_then(date_of);
    let mut dates = parts.filter_map(|rest| first(rest).or_else(|| date_below(rest))).peekable();
    dates.peek().is_some() && dates.all(|date| date < start)
}

/// The part of a key below a prefix.
pub(super) fn below(prefix: &Path, key: &Path) -> Option<String> {
    let parts: Vec<_> = key.prefix_match(prefix)?.map(|part| part.as_ref().to_owned()).collect();
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The workspace that a path names in one of its folders.
pub(super) fn workspace_in(path: &str) -> Option<&str> {
    path.split('/').find_map(workspace_of)
}

/// The workspace of a folder `workspaceId=<id>`.
pub(super) fn workspace_of(folder: &str) -> Option<&str> {
    value_of("workspaceid=", folder)
}

/// The date of a folder `date=<yyyy-mm-dd>`.
pub(super) fn date_of(folder: &str) -> Option<Date> {
    Date::parse(value_of("date=", folder)?)
}

/// What follows a key in a folder's name, upper and lower case alike.
pub(super) fn value_of<'a>(key: &str, folder: &'a str) -> Option<&'a str> {
    let (name, value) = (folder.get(..key.len())?, folder.get(key.len()..)?);
    (name.eq_ignore_ascii_case(key) && !value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery() -> Layout {
        Layout::DatabricksDelivery {
            workspaces: Vec::new(),
            exclude_workspaces: vec!["9".to_owned()],
            start_date: Date::parse("2026-01-02"),
        }
    }

    fn placed(layout: &Layout, key: &str) -> Option<(Option<String>, Option<String>)> {
        let place = layout.place(&Path::from("logs"), &Path::from(key))?;
        Some((place.workspace.map(|id| id.to_string()), place.date.map(|date| date.to_string())))
    }

    #[test]
    fn a_delivered_object_names_its_workspace_and_date() {
        let expected = Some((Some("0".to_owned()), Some("2026-01-05".to_owned())));
        assert_eq!(placed(&delivery(), "logs/workspaceId=0/date=2026-01-05/auditlogs_1.json"), expected);
        assert_eq!(placed(&delivery(), "logs/workspaceId=0/date=2026-01-05/auditlogs_1.json.gz"), expected);
    }

    #[test]
    fn what_lies_before_the_first_date_is_told_by_its_path() {
        let start = Date::parse("2026-01-02").unwrap();
        for (folder, expected) in [
            ("logs/workspaceId=7/date=2026-01-01/", true),
            ("logs/workspaceId=7/date=2026-01-02/", false),
            ("insights-logs-jobs/resourceId=/SUBSCRIPTIONS/x/y=2026/m=01/d=01/h=10/m=00/", true),
            ("insights-logs-jobs/resourceId=/SUBSCRIPTIONS/x/y=2026/m=01/d=02/h=10/m=00/", false),
            // The prefix has a date of its own: only if both lie before.
            ("date=2020-01-01/workspaceId=7/date=2026-01-05/", false),
            ("date=2026-01-05/workspaceId=7/date=2020-01-01/", false),
            ("logs/workspaceId=7/", false),
            ("//", false),
            ("", false),
        ] {
            assert_eq!(is_before(start, folder), expected, "{folder}");
        }
    }

    #[test]
    fn other_objects_and_filtered_ones_are_left_alone() {
        for key in [
            "logs/workspaceId=9/date=2026-01-05/auditlogs_1.json",
            "logs/workspaceId=1/date=2026-01-01/auditlogs_1.json",
            "logs/workspaceId=1/date=2026-01-05/.auditlogs_1.json.tmp",
            "logs/workspaceId=1/date=2026-01-05/_SUCCESS",
            "logs/workspaceId=1/date=someday/auditlogs_1.json",
            "logs/billing/usage.json",
            "elsewhere/workspaceId=1/date=2026-01-05/auditlogs_1.json",
        ] {
            assert_eq!(placed(&delivery(), key), None, "{key}");
        }
        let only = Layout::DatabricksDelivery {
            workspaces: vec!["5".to_owned()],
            exclude_workspaces: Vec::new(),
            start_date: None,
        };
        assert!(only.wants_workspace("5") && !only.wants_workspace("6"));
    }

    #[test]
    fn any_object_is_taken_where_the_glob_says_so() {
        let glob = globset::Glob::new("**/*.ndjson").unwrap().compile_matcher();
        let layout = Layout::Any { glob: Some(glob) };
        assert_eq!(placed(&layout, "logs/a/b.ndjson"), Some((None, None)));
        assert_eq!(placed(&layout, "logs/a/b.json"), None);
        let all = Layout::Any { glob: None };
        assert_eq!(placed(&all, "logs/x/date=2026-01-05/y.txt"), Some((None, Some("2026-01-05".to_owned()))));
    }
}
