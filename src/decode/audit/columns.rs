//! Which key of which shape is which column: the mapping table.

use super::Shape;
use crate::json::Text;

/// A column of the canonical record, or a value that a column is derived from.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Kept under `_source` by this name.
    Kept(Text<'static>),
}

/// The column of a top-level key, compared without regard to case; `None` for a key nobody knows.
pub(super) fn column(shape: Shape, key: &str) -> Option<Column> {
    let mut buffer = [0u8; 32];
    let lower = buffer.get_mut(..key.len())?;
    for (to, from) in lower.iter_mut().zip(key.bytes()) {
        *to = from.to_ascii_lowercase();
    }
    match shape {
        Shape::Delivery => delivery(lower),
        Shape::AzureDiagnostic => azure_diagnostic(lower),
        Shape::LogAnalytics => log_analytics(lower),
        Shape::TableRow => table_row(lower),
        Shape::Unknown => None,
    }
}

fn delivery(key: &[u8]) -> Option<Column> {
    Some(match key {
        b"version" => Column::Version,
        b"auditlevel" => Column::AuditLevel,
        b"timestamp" => Column::EventTime,
        b"orgid" => Column::OrgId,
        b"workspaceid" => Column::WorkspaceId,
        b"shardname" => Column::Kept(Text::from_static("\"shard_name\"")),
        b"accountid" => Column::AccountId,
        b"sourceipaddress" => Column::SourceIpAddress,
        b"useragent" => Column::UserAgent,
        b"sessionid" => Column::SessionId,
        b"useridentity" => Column::UserIdentity,
        b"servicename" => Column::ServiceName,
        b"actionname" => Column::ActionName,
        b"requestid" => Column::RequestId,
        b"requestparams" => Column::RequestParams,
        b"response" => Column::Response,
        b"identitymetadata" | b"identity_metadata" => Column::IdentityMetadata,
        b"eventid" | b"event_id" | b"logid" => Column::EventId,
        _ => return None,
    })
}

/// The record and its `properties` share one table: the common schema of Azure resource logs lets either hold them.
fn azure_diagnostic(key: &[u8]) -> Option<Column> {
    Some(match key {
        b"time" => Column::EventTime,
        b"resourceid" => Column::ResourceId,
        b"operationversion" => Column::Version,
        b"operationname" => Column::OperationName,
        b"identity" => Column::UserIdentity,
        b"properties" => Column::Properties,
        b"logid" => Column::EventId,
        b"servicename" => Column::ServiceName,
        b"actionname" => Column::ActionName,
        b"sourceipaddress" => Column::SourceIpAddress,
        b"useragent" => Column::UserAgent,
        b"sessionid" => Column::SessionId,
        b"requestid" => Column::RequestId,
        b"requestparams" => Column::RequestParams,
        b"response" => Column::Response,
        b"category" => Column::Kept(Text::from_static("\"azure.category\"")),
        b"host" => Column::Kept(Text::from_static("\"azure.host\"")),
        _ => return None,
    })
}

fn log_analytics(key: &[u8]) -> Option<Column> {
    Some(match key {
        b"timegenerated" => Column::EventTime,
        b"operationversion" => Column::Version,
        b"operationname" => Column::OperationName,
        b"identity" => Column::UserIdentity,
        b"logid" => Column::EventId,
        b"servicename" => Column::ServiceName,
        b"actionname" => Column::ActionName,
        b"sourceipaddress" => Column::SourceIpAddress,
        b"useragent" => Column::UserAgent,
        b"sessionid" => Column::SessionId,
        b"requestid" => Column::RequestId,
        b"requestparams" => Column::RequestParams,
        b"response" => Column::Response,
        b"_resourceid" | b"resourceid" => Column::ResourceId,
        b"category" => Column::Kept(Text::from_static("\"azure.category\"")),
        b"type" => Column::Kept(Text::from_static("\"azure.table\"")),
        _ => return None,
    })
}

fn table_row(key: &[u8]) -> Option<Column> {
    Some(match key {
        b"account_id" => Column::AccountId,
        b"workspace_id" => Column::WorkspaceId,
        b"version" => Column::Version,
        b"event_time" => Column::EventTime,
        b"event_date" => Column::EventDate,
        b"source_ip_address" => Column::SourceIpAddress,
        b"user_agent" => Column::UserAgent,
        b"session_id" => Column::SessionId,
        b"user_identity" => Column::UserIdentity,
        b"service_name" => Column::ServiceName,
        b"action_name" => Column::ActionName,
        b"request_id" => Column::RequestId,
        b"request_params" => Column::RequestParams,
        b"response" => Column::Response,
        b"audit_level" => Column::AuditLevel,
        b"event_id" => Column::EventId,
        b"identity_metadata" => Column::IdentityMetadata,
        _ => return None,
    })
}
