//! The shapes an event takes on the routes, one line each.

use super::catalog::{Action, Service};
use super::event::Event;
use crate::json;

/// Whose record it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    /// The folder's workspace; `0` for the account.
    pub(super) workspace_id: &'a str,
    /// What tells the workspace's name in Azure from the others: digits, so the same in either case.
    pub(super) workspace_number: &'a str,
}

const ACCOUNT_ID: &str = "5f1d8a52-0b7c-4c1e-9a44-2f6f3f0c9d10";
const SUBSCRIPTION: &str = "11111111-2222-3333-4444-555555555555";
const RESOURCE_UPPER: &str = "/SUBSCRIPTIONS/11111111-2222-3333-4444-555555555555/RESOURCEGROUPS/RG-DATA/PROVIDERS/MICROSOFT.DATABRICKS/WORKSPACES/DBW-";
const RESOURCE_LOWER: &str = "/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg-data/providers/microsoft.databricks/workspaces/dbw-";
const LOG_ANALYTICS_LOWER: &str = "/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg-logs/providers/microsoft.operationalinsights/workspaces/log-";

/// Turns events into lines; holds the buffers for the JSON within JSON.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    identity: String,
    response: String,
}

fn put(line: &mut Vec<u8>, pieces: &[&str]) {
    for piece in pieces {
        line.extend_from_slice(piece.as_bytes());
    }
}

/// Appends JSON text as a JSON string.
fn put_nested(line: &mut Vec<u8>, name: &str, value: Option<&str>) {
    put(line, &[",\"", name, "\":"]);
    match value {
        Some(value) => json::write_quoted(value, line),
        None => line.extend_from_slice(b"null"),
    }
}

/// Appends the time in seconds without zone or fraction.
fn put_seconds(line: &mut Vec<u8>, event: &Event) {
    let from = line.len();
    if let Some(time) = event.time {
        time.write_rfc3339(line);
    }
    line.truncate(from + "2026-01-05T10:34:56".len());
}

impl Recorder {
    /// Appends a line of a delivery bucket, without its end.
    pub(super) fn delivery(&self, event: &Event, owner: Owner<'_>, line: &mut Vec<u8>) {
        let Some((service, action)) = event.what else { return };
        let level = if owner.workspace_id == "0" { "ACCOUNT_LEVEL" } else { "WORKSPACE_LEVEL" };
        put(line, &["{\"version\":\"2.0\",\"auditLevel\":\"", level, "\",\"timestamp\":"]);
        let millis = event.time.map_or(0, |time| time.get().unsigned_abs());
        json::write_number(millis, line);
        put(line, &[",\"orgId\":\"", owner.workspace_id, "\",\"shardName\":\"example-shard-1\""]);
        put(line, &[",\"accountId\":\"", ACCOUNT_ID, "\",\"sourceIPAddress\":", &event.source_address]);
        put(line, &[",\"userAgent\":", &event.user_agent, ",\"sessionId\":", &event.session_id]);
        put(line, &[",\"userIdentity\":{\"email\":\"", &event.user, "\",\"subjectName\":null}"]);
        put(line, &[",\"serviceName\":\"", service.name, "\",\"actionName\":\"", action.name]);
        put(
            line,
            &["\",\"requestId\":\"", &event.request_id, "\",\"requestParams\":", &event.request_params],
        );
        line.extend_from_slice(b",\"response\":");
        match event.response {
            None => line.extend_from_slice(b"null"),
            Some(response) => {
                line.extend_from_slice(b"{\"statusCode\":");
                json::write_number(response.status.into(), line);
                match response.error {
                    Some(error) => put(line, &[",\"errorMessage\":\"", error, "\""]),
                    None => line.extend_from_slice(b",\"errorMessage\":null"),
                }
                put(line, &[",\"result\":", &event.result, "}"]);
            }
        }
        line.extend_from_slice(b",\"MAX_LOG_MESSAGE_LENGTH\":16384}");
    }

    /// Appends a line of a diagnostic setting's blob, without its end.
    pub(super) fn diagnostic(&mut self, event: &Event, owner: Owner<'_>, line: &mut Vec<u8>) {
        let Some((service, action)) = event.what else { return };
        self.nest(event);
        put(line, &["{\"resourceId\":\"", RESOURCE_UPPER]);
        put(line, &[owner.workspace_number, "\",\"operationVersion\":\"1.0.0\""]);
        put_nested(line, "identity", Some(&self.identity));
        put_operation(line, "operationName", service, action);
        line.extend_from_slice(b",\"time\":\"");
        put_seconds(line, event);
        put(line, &["Z\",\"category\":\"", service.category.unwrap_or(service.name)]);
        put(line, &["\",\"properties\":{\"sourceIPAddress\":", &event.source_address]);
        put(line, &[",\"logId\":\"", &event.log_id, "\",\"serviceName\":\"", service.name]);
        put(line, &["\",\"userAgent\":", &event.user_agent]);
        put_nested(line, "response", event.response.map(|_| self.response.as_str()));
        put(line, &[",\"sessionId\":", &event.session_id, ",\"actionName\":\"", action.name]);
        put(line, &["\",\"requestId\":\"", &event.request_id, "\""]);
        put_nested(line, "requestParams", Some(&event.request_params));
        line.extend_from_slice(b"},\"Host\":\"0105-101010-example1-10-0-0-4\"}");
    }

    /// Appends a line of a Log Analytics export, without its end.
    pub(super) fn log_analytics(&mut self, event: &Event, owner: Owner<'_>, line: &mut Vec<u8>) {
        let Some((service, action)) = event.what else { return };
        let Some(table) = service.table else { return };
        self.nest(event);
        put(line, &["{\"TenantId\":\"99999999-8888-7777-6666-555555555555\",\"SourceSystem\":\"Azure\""]);
        line.extend_from_slice(b",\"TimeGenerated\":\"");
        put_seconds(line, event);
        line.extend_from_slice(b".0000000Z\"");
        put_operation(line, "OperationName", service, action);
        put(
            line,
            &[",\"OperationVersion\":\"1.0.0\",\"Category\":\"", service.category.unwrap_or(service.name)],
        );
        line.push(b'"');
        let column = |line: &mut Vec<u8>, name: &str, value: Option<&str>| {
            if table.dynamic {
                put(line, &[",\"", name, "\":", value.unwrap_or("null")]);
            } else {
                put_nested(line, name, Some(value.unwrap_or_default()));
            }
        };
        column(line, "Identity", Some(&self.identity));
        let address = if table.dynamic { "SourceIpAddress" } else { "SourceIPAddress" };
        put(line, &[",\"", address, "\":", or_empty(&event.source_address)]);
        put(line, &[",\"LogId\":\"", &event.log_id, "\",\"ServiceName\":\"", service.name]);
        put(line, &["\",\"UserAgent\":", or_empty(&event.user_agent)]);
        put(line, &[",\"SessionId\":", or_empty(&event.session_id), ",\"ActionName\":\"", action.name]);
        put(line, &["\",\"RequestId\":\"", &event.request_id, "\""]);
        column(line, "Response", event.response.map(|_| self.response.as_str()));
        column(line, "RequestParams", Some(&event.request_params));
        put(line, &[",\"Type\":\"", table.name, "\",\"_ResourceId\":\"", RESOURCE_LOWER]);
        put(line, &[owner.workspace_number, "\",\"_SubscriptionId\":\"", SUBSCRIPTION, "\"}"]);
    }

    /// Writes the identity and the response the way Azure does: JSON text, members that are null left out.
    fn nest(&mut self, event: &Event) {
        self.identity.clear();
        self.identity.push_str("{\"email\":\"");
        self.identity.push_str(&event.user);
        self.identity.push_str("\",\"subjectName\":null}");
        self.response.clear();
        let Some(response) = event.response else { return };
        self.response.push_str("{\"statusCode\":");
        super::text::push_number(response.status.into(), &mut self.response);
        if let Some(error) = response.error {
            self.response.push_str(",\"errorMessage\":\"");
            self.response.push_str(error);
            self.response.push('"');
        }
        if event.result != "null" {
            self.response.push_str(",\"result\":");
            self.response.push_str(&event.result);
        }
        self.response.push('}');
    }
}

fn put_operation(line: &mut Vec<u8>, key: &str, service: &Service, action: &Action) {
    let category = service.category.unwrap_or(service.name);
    put(line, &[",\"", key, "\":\"Microsoft.Databricks/", category, "/", action.name, "\""]);
}

/// Log Analytics has no null in its text columns.
fn or_empty(value: &str) -> &str {
    if value == "null" { "\"\"" } else { value }
}

/// Path of a workspace's diagnostic blobs below the category's container.
pub(super) fn diagnostic_folder(workspace_number: &str) -> String {
    format!("resourceId={RESOURCE_UPPER}{workspace_number}")
}

/// Path of a Log Analytics workspace's export below the table's container.
pub(super) fn log_analytics_folder(workspace_number: &str) -> String {
    format!("WorkspaceResourceId={LOG_ANALYTICS_LOWER}{workspace_number}")
}
