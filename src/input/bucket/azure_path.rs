//! Paths of the blobs that Azure Monitor writes, in containers of one storage account.
//!
//! ```text
//!   insights-logs-<category>/resourceId=/SUBSCRIPTIONS/…/RESOURCEGROUPS/…/PROVIDERS/MICROSOFT.DATABRICKS/WORKSPACES/…
//!       /y=2026/m=01/d=05/h=10/m=00/PT1H.json
//!   am-<table>/WorkspaceResourceId=/subscriptions/…/resourcegroups/…/providers/microsoft.operationalinsights/workspaces/…
//!       /y=2026/m=01/d=05/h=10/m=05/PT05M.json
//! ```
//!
//! Services differ in upper and lower case and in the slash behind `resourceId=`: neither counts. The folder of a
//! resource, up to its name, is a *lane*: its dates lie below it.

use std::sync::Arc;

use super::layout::{Place, value_of};
use crate::time::{Date, Millis};

/// Who wrote the blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AzureLayout {
    /// A diagnostic setting: the hour is that in which the log was received, the resource is the Databricks workspace.
    Diagnostic,
    /// A data export of Log Analytics: the hour is that of the event, the resource is the Log Analytics workspace.
    LogAnalytics,
}

/// The containers of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Containers {
    pub(super) layout: AzureLayout,
    /// Only these; all of the layout where there are none.
    pub(super) named: Vec<String>,
}

/// What a path within a container is on the way to its blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// None of ours.
    No,
    /// The beginning of one.
    Partly,
    /// One, with the resource's id in lower case.
    Whole(String),
}

impl AzureLayout {
    /// What the names of its containers begin with.
    pub(super) fn container_prefix(self) -> &'static str {
        match self {
            Self::Diagnostic => "insights-logs-",
            Self::LogAnalytics => "am-databricks",
        }
    }

    fn first_folder(self) -> &'static str {
        match self {
            Self::Diagnostic => "resourceid=",
            Self::LogAnalytics => "workspaceresourceid=",
        }
    }

    /// Storage accounts are shared: key vaults and others log to containers of the same names.
    fn provider(self) -> &'static str {
        match self {
            Self::Diagnostic => "microsoft.databricks",
            Self::LogAnalytics => "microsoft.operationalinsights",
        }
    }

    fn is_blob(self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match self {
            // `.json.gz` and the like of whoever copied and compressed them.
            Self::Diagnostic => name.starts_with("pt1h.json"),
            // `PT05M_1.json` and on where an hour took more than 50,000 appends.
            Self::LogAnalytics => {
                let rest = name.strip_prefix("pt05m").unwrap_or_default();
                let rest =
                    rest.strip_prefix('_').unwrap_or(rest).trim_start_matches(|c: char| c.is_ascii_digit());
                rest.starts_with(".json")
            }
        }
    }

    /// What a path below a container is.
    pub(super) fn lane(self, path: &str) -> Lane {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let Some(resource) = first
            .get(..self.first_folder().len())
            .filter(|name| name.eq_ignore_ascii_case(self.first_folder()))
            .and_then(|name| first.get(name.len()..))
        else {
            return Lane::No;
        };
        let parts: Vec<String> = [resource]
            .into_iter()
            .chain(rest.split('/'))
            .filter(|part| !part.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        let expected = [
            Some("subscriptions"),
            None,
            Some("resourcegroups"),
            None,
            Some("providers"),
            Some(self.provider()),
            Some("workspaces"),
            None,
        ];
        let fits =
            parts.iter().zip(expected).all(|(part, expected)| expected.is_none_or(|name| part == name));
        match parts.len() {
            8 if fits => Lane::Whole(format!("/{}", parts.join("/"))),
            0..8 if fits => Lane::Partly,
            _ => Lane::No,
        }
    }
}

impl Containers {
    /// True for a container the filters let through.
    pub(super) fn wants(&self, container: &str) -> bool {
        match self.named.as_slice() {
            [] => container.starts_with(self.layout.container_prefix()),
            named => named.iter().any(|name| name == container),
        }
    }

    /// What the path of a blob says, container included; `None` for one that is none of ours.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let (container, path) = path.split_once('/')?;
        let parts: Vec<&str> = path.rsplitn(7, '/').collect();
        let [name, minute, hour, day, month, year, lane] = parts.as_slice() else { return None };
        if !self.wants(container) || !self.layout.is_blob(name) {
            return None;
        }
        let Lane::Whole(resource) = self.layout.lane(lane) else { return None };
        let date = date_of(year, month, day)?;
        let hour: i64 = value_of("h=", hour)?.parse().ok().filter(|hour| (0..24).contains(hour))?;
        value_of("m=", minute)?;
        let until = Millis::new(date.start().get() + (hour + 1) * 3_600_000);
        let resource = (self.layout == AzureLayout::Diagnostic).then(|| Arc::from(resource));
        Some(Place { workspace: None, date: Some(date), until, resource })
    }
}

/// The date of the folders `y=2026`, `m=01` and `d=05`.
fn date_of(year: &str, month: &str, day: &str) -> Option<Date> {
    let (year, month, day) = (value_of("y=", year)?, value_of("m=", month)?, value_of("d=", day)?);
    Date::parse(&format!("{year}-{month:0>2}-{day:0>2}"))
}

/// The date of the path below a lane: `y=2026/m=01/d=05`.
pub(super) fn date_below(path: &str) -> Option<Date> {
    let mut parts = path.split('/');
    date_of(parts.next()?, parts.next()?, parts.next()?)
}

/// The folders of a date below a lane.
pub(super) fn date_folders(date: Date) -> [String; 3] {
    let text = date.to_string();
    let mut parts = text.splitn(3, '-');
    ["y", "m", "d"].map(|key| format!("{key}={}", parts.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPPER: &str =
        "resourceId=/SUBSCRIPTIONS/S/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.DATABRICKS/WORKSPACES/PROD";
    const EXPORT: &str = "WorkspaceResourceId=/subscriptions/s/resourcegroups/rg/providers/microsoft.operationalinsights/workspaces/log";

    fn all(layout: AzureLayout) -> Containers {
        Containers { layout, named: Vec::new() }
    }

    #[test]
    fn a_blob_of_a_diagnostic_setting_names_its_resource_and_hour() {
        let id = "/subscriptions/s/resourcegroups/rg/providers/microsoft.databricks/workspaces/prod";
        for lane in [
            UPPER,
            &UPPER.to_lowercase(),
            &UPPER.replace("Id=/", "Id="),
            &UPPER.replace("resourceId", "RESOURCEID"),
        ] {
            let path = format!("insights-logs-jobs/{lane}/y=2026/m=01/d=05/h=10/m=00/PT1H.json");
            let place = all(AzureLayout::Diagnostic).place(&path).unwrap();
            assert_eq!(place.resource.as_deref(), Some(id), "{lane}");
            assert_eq!(place.date.unwrap().to_string(), "2026-01-05");
            assert_eq!(place.until, Millis::parse("2026-01-05T11:00:00Z"));
        }
    }

    #[test]
    fn a_blob_of_an_export_has_the_same_date_whatever_its_number() {
        for name in ["PT05M.json", "PT05M_1.json", "PT05M_12.json"] {
            let path = format!("am-databricksjobs/{EXPORT}/y=2026/m=01/d=05/h=23/m=55/{name}");
            let place = all(AzureLayout::LogAnalytics).place(&path).unwrap();
            assert_eq!((place.date.unwrap().to_string().as_str(), place.resource), ("2026-01-05", None));
            assert_eq!(place.until, Millis::parse("2026-01-06T00:00:00Z"));
        }
    }

    #[test]
    fn other_blobs_are_left_alone() {
        let vault = UPPER.replace("DATABRICKS/WORKSPACES", "KEYVAULT/VAULTS");
        for path in [
            format!("insights-logs-auditevent/{vault}/y=2026/m=01/d=05/h=10/m=00/PT1H.json"),
            format!("insights-metrics/{UPPER}/y=2026/m=01/d=05/h=10/m=00/PT1H.json"),
            format!("insights-logs-jobs/{UPPER}/y=2026/m=13/d=05/h=10/m=00/PT1H.json"),
            format!("insights-logs-jobs/{UPPER}/y=2026/m=01/d=05/h=24/m=00/PT1H.json"),
            format!("insights-logs-jobs/{UPPER}/y=2026/m=01/d=05/h=10/m=00/other.json"),
            format!("insights-logs-jobs/{UPPER}/y=2026/m=01/d=05/PT1H.json"),
            "insights-logs-jobs/PT1H.json".to_owned(),
        ] {
            assert_eq!(all(AzureLayout::Diagnostic).place(&path), None, "{path}");
        }
        let path = format!("am-databricksjobs/{EXPORT}/y=2026/m=01/d=05/h=10/m=05/PT05Mx.json");
        assert_eq!(all(AzureLayout::LogAnalytics).place(&path), None);
    }

    #[test]
    fn a_lane_is_known_by_its_beginning() {
        let layout = AzureLayout::Diagnostic;
        let parts: Vec<&str> = UPPER.split('/').collect();
        for length in 1..parts.len() {
            assert_eq!(layout.lane(&parts[..length].join("/")), Lane::Partly);
        }
        assert!(matches!(layout.lane(UPPER), Lane::Whole(_)));
        assert_eq!(layout.lane(&format!("{UPPER}/y=2026")), Lane::No);
        assert_eq!(
            layout.lane("resourceId=/SUBSCRIPTIONS/S/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.KEYVAULT"),
            Lane::No
        );
        assert_eq!(layout.lane("elsewhere"), Lane::No);
    }

    #[test]
    fn named_containers_are_the_only_ones() {
        let named =
            Containers { layout: AzureLayout::Diagnostic, named: vec!["insights-logs-jobs".to_owned()] };
        assert!(named.wants("insights-logs-jobs") && !named.wants("insights-logs-dbfs"));
        let export = all(AzureLayout::LogAnalytics);
        assert!(export.wants("am-databricksjobs") && !export.wants("am-heartbeat"));
    }

    #[test]
    fn a_date_has_three_folders() {
        let date = Date::parse("2026-01-05").unwrap();
        let folders = date_folders(date);
        assert_eq!(folders, ["y=2026", "m=01", "d=05"]);
        assert_eq!(date_below(&folders.join("/")), Some(date));
    }
}
