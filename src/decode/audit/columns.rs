//! Which key of which shape is which column: the mapping table.

use super::Shape;
use crate::json::Text;

/// A column of the canonical record, or a value that a column is derived from. One byte: it is looked up for each member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    EventTime,
    EventDate,
    AccountId,
    WorkspaceId,
    OrgId,
    Version,
    AuditLevel,
    EventId,
    ServiceName,
    ActionName,
    SourceIpAddress,
    UserAgent,
    SessionId,
    RequestId,
    UserIdentity,
    RequestParams,
    Response,
    IdentityMetadata,
    OperationName,
    ResourceId,
    Properties,
    /// Kept under `_source`, by a name of ours.
    Kept(Kept),
}

/// What no column is for, in every shape that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    ShardName,
    AzureCategory,
    AzureHost,
    AzureTable,
}

impl Kept {
    /// Its name under `_source`.
    pub(super) fn name(self) -> Text<'static> {
        Text::from_static(match self {
            Self::ShardName => "\"shard_name\"",
            Self::AzureCategory => "\"azure.category\"",
            Self::AzureHost => "\"azure.host\"",
            Self::AzureTable => "\"azure.table\"",
        })
    }
}

/// The names of a shape's columns as its route spells and orders them.
type Table = &'static [(&'static str, Column)];

/// Finds the columns of a record's keys, compared without regard to case.
pub(super) struct Columns {
    table: Table,
    /// Where the next key is looked for first: records of a route have theirs in one order.
    next: usize,
}

impl Columns {
    pub(super) fn of(shape: Shape) -> Self {
        let table = match shape {
            Shape::Delivery => DELIVERY,
            Shape::AzureDiagnostic => AZURE_DIAGNOSTIC,
            Shape::LogAnalytics => LOG_ANALYTICS,
            Shape::TableRow => TABLE_ROW,
            Shape::Unknown => &[],
        };
        Self { table, next: 0 }
    }

    /// The column of a top-level key; `None` for a key nobody knows.
    pub(super) fn find(&mut self, key: &str) -> Option<Column> {
        if let Some((name, column)) = self.table.get(self.next)
            && *name == key
        {
            self.next += 1;
            return Some(*column);
        }
        let at = self.table.iter().position(|(name, _)| name.eq_ignore_ascii_case(key))?;
        self.next = at + 1;
        self.table.get(at).map(|(_, column)| *column)
    }
}

const DELIVERY: Table = &[
    ("version", Column::Version),
    ("auditLevel", Column::AuditLevel),
    ("timestamp", Column::EventTime),
    ("orgId", Column::OrgId),
    ("workspaceId", Column::WorkspaceId),
    ("shardName", Column::Kept(Kept::ShardName)),
    ("accountId", Column::AccountId),
    ("sourceIPAddress", Column::SourceIpAddress),
    ("userAgent", Column::UserAgent),
    ("sessionId", Column::SessionId),
    ("userIdentity", Column::UserIdentity),
    ("serviceName", Column::ServiceName),
    ("actionName", Column::ActionName),
    ("requestId", Column::RequestId),
    ("requestParams", Column::RequestParams),
    ("response", Column::Response),
    ("identityMetadata", Column::IdentityMetadata),
    ("identity_metadata", Column::IdentityMetadata),
    ("eventId", Column::EventId),
    ("event_id", Column::EventId),
    ("logId", Column::EventId),
];

/// The record and its `properties` share one table: the common schema of Azure resource logs lets either hold them.
const AZURE_DIAGNOSTIC: Table = &[
    ("time", Column::EventTime),
    ("resourceId", Column::ResourceId),
    ("operationVersion", Column::Version),
    ("operationName", Column::OperationName),
    ("identity", Column::UserIdentity),
    ("properties", Column::Properties),
    ("logId", Column::EventId),
    ("serviceName", Column::ServiceName),
    ("actionName", Column::ActionName),
    ("sourceIPAddress", Column::SourceIpAddress),
    ("userAgent", Column::UserAgent),
    ("sessionId", Column::SessionId),
    ("requestId", Column::RequestId),
    ("requestParams", Column::RequestParams),
    ("response", Column::Response),
    ("category", Column::Kept(Kept::AzureCategory)),
    ("host", Column::Kept(Kept::AzureHost)),
];

const LOG_ANALYTICS: Table = &[
    ("TimeGenerated", Column::EventTime),
    ("OperationVersion", Column::Version),
    ("OperationName", Column::OperationName),
    ("Identity", Column::UserIdentity),
    ("LogId", Column::EventId),
    ("ServiceName", Column::ServiceName),
    ("ActionName", Column::ActionName),
    ("SourceIPAddress", Column::SourceIpAddress),
    ("UserAgent", Column::UserAgent),
    ("SessionId", Column::SessionId),
    ("RequestId", Column::RequestId),
    ("RequestParams", Column::RequestParams),
    ("Response", Column::Response),
    ("_ResourceId", Column::ResourceId),
    ("ResourceId", Column::ResourceId),
    ("Category", Column::Kept(Kept::AzureCategory)),
    ("Type", Column::Kept(Kept::AzureTable)),
];

const TABLE_ROW: Table = &[
    ("account_id", Column::AccountId),
    ("workspace_id", Column::WorkspaceId),
    ("version", Column::Version),
    ("event_time", Column::EventTime),
    ("event_date", Column::EventDate),
    ("source_ip_address", Column::SourceIpAddress),
    ("user_agent", Column::UserAgent),
    ("session_id", Column::SessionId),
    ("user_identity", Column::UserIdentity),
    ("service_name", Column::ServiceName),
    ("action_name", Column::ActionName),
    ("request_id", Column::RequestId),
    ("request_params", Column::RequestParams),
    ("response", Column::Response),
    ("audit_level", Column::AuditLevel),
    ("event_id", Column::EventId),
    ("identity_metadata", Column::IdentityMetadata),
];
