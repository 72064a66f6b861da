//! Where the objects of each layout lie, and which part of the day each covers.

use super::catalog::{Level, Pool, SERVICES, Service};
use super::record;
use super::rounds::Rewrite;
use crate::time::{Date, Millis};

/// The layouts of the three routes that leave files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Layout {
    /// `workspaceId=<id>/date=<yyyy-mm-dd>/auditlogs_<id>.json`, as delivered on AWS and Google Cloud.
    DatabricksDelivery,
    /// `insights-logs-<category>/resourceId=…/y=/m=/d=/h=/m=00/PT1H.json` of an Azure diagnostic setting.
    AzureDiagnostic,
    /// `am-<table>/WorkspaceResourceId=…/y=/m=/d=/h=/m=/PT05M.json` of a Log Analytics data export.
    LogAnalyticsExport,
}

pub(super) const MILLIS_PER_DAY: i64 = 86_400_000;

/// The place of one object within a day of a workspace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Below the objects of the day.
    pub(super) number: u32,
    /// The objects of the day.
    pub(super) of: u32,
}

impl Layout {
    /// How Databricks or Azure changes objects: delivered files are overwritten, blobs are only appended to.
    pub(super) fn rewrites(self) -> &'static [Rewrite] {
        match self {
            Self::DatabricksDelivery => Rewrite::ALL,
            Self::AzureDiagnostic | Self::LogAnalyticsExport => &[Rewrite::Append],
        }
    }

    pub(super) fn objects_per_day(self) -> u32 {
        match self {
            Self::DatabricksDelivery => 2,
            // Three or four times of the day for each category.
            Self::AzureDiagnostic | Self::LogAnalyticsExport => 24,
        }
    }

    /// More objects would share a path.
    pub(super) fn most_objects_per_day(self) -> u32 {
        let services = u32::try_from(self.services().count()).unwrap_or(u32::MAX);
        match self {
            Self::DatabricksDelivery => 100_000,
            Self::AzureDiagnostic => services.saturating_mul(24),
            Self::LogAnalyticsExport => services.saturating_mul(288),
        }
    }

    /// The services whose blobs a day has, in the order of the slots.
    fn services(self) -> impl Iterator<Item = &'static Service> {
        SERVICES.iter().filter(move |service| match self {
            Self::DatabricksDelivery => true,
            Self::AzureDiagnostic => service.category.is_some(),
            Self::LogAnalyticsExport => service.table.is_some(),
        })
    }

    fn service(self, slot: Slot) -> Option<&'static Service> {
        let count = u32::try_from(self.services().count()).unwrap_or(1).max(1);
        self.services().nth(usize::try_from(slot.number % count).unwrap_or(0))
    }

    /// What may happen in the objects: one pool for the account and one for the workspaces of a delivery bucket, one
    /// per service in Azure.
    pub(super) fn pools(self) -> Vec<Pool> {
        let at = |wanted: Level| {
            Pool::of(SERVICES.iter().filter(move |service| [wanted, Level::Both].contains(&service.level)))
        };
        match self {
            Self::DatabricksDelivery => vec![at(Level::Account), at(Level::Workspace)],
            Self::AzureDiagnostic | Self::LogAnalyticsExport => {
                self.services().map(|service| Pool::of(std::iter::once(service))).collect()
            }
        }
    }

    /// Which of the [`pools`](Self::pools) an object draws from.
    pub(super) fn pool(self, account: bool, slot: Slot) -> usize {
        match self {
            Self::DatabricksDelivery => usize::from(!account),
            Self::AzureDiagnostic | Self::LogAnalyticsExport => {
                usize::try_from(slot.number).unwrap_or(0) % self.services().count().max(1)
            }
        }
    }

    /// First instant that an object covers, and how many milliseconds it covers.
    pub(super) fn span(self, date: Date, slot: Slot) -> (Millis, i64) {
        let (offset, length) = match self {
            Self::DatabricksDelivery => {
                let length = MILLIS_PER_DAY / i64::from(slot.of.max(1));
                (length * i64::from(slot.number), length)
            }
            Self::AzureDiagnostic => self.bin(slot, 24),
            Self::LogAnalyticsExport => self.bin(slot, 288),
        };
        let start = date.start();
        (Millis::new(start.get() + offset).unwrap_or(start), length)
    }

    /// Spreads the rows of categories over the day's hours, or five-minute steps.
    fn bin(self, slot: Slot, bins: i64) -> (i64, i64) {
        let services = u32::try_from(self.services().count()).unwrap_or(1).max(1);
        let rows = i64::from(slot.of.div_ceil(services)).max(1);
        let bin = i64::from(slot.number / services) * bins / rows;
        let length = MILLIS_PER_DAY / bins;
        (bin * length, length)
    }

    /// The object's key: a path with `/` below the bucket's root.
    pub(super) fn key(self, owner: record::Owner<'_>, date: Date, slot: Slot, object_id: u64) -> String {
        if self == Self::DatabricksDelivery {
            return format!("workspaceId={}/date={date}/auditlogs_{object_id:016x}.json", owner.workspace_id);
        }
        let mut start = Vec::new();
        self.span(date, slot).0.write_rfc3339(&mut start);
        let start = String::from_utf8(start).unwrap_or_default();
        let part = |at: std::ops::Range<usize>| start.get(at).unwrap_or_default();
        let (year, month, day, hour) = (part(0..4), part(5..7), part(8..10), part(11..13));
        let time = format!("y={year}/m={month}/d={day}/h={hour}/m={}", part(14..16));
        let Some(service) = self.service(slot) else { return time };
        match service.table {
            Some(table) if self == Self::LogAnalyticsExport => {
                let folder = record::log_analytics_folder(owner.workspace_number);
                format!("am-{}/{folder}/{time}/PT05M.json", table.name.to_lowercase())
            }
            _ => {
                let folder = record::diagnostic_folder(owner.workspace_number);
                let category = service.category.unwrap_or(service.name).to_lowercase();
                format!("insights-logs-{category}/{folder}/{time}/PT1H.json")
            }
        }
    }
}
