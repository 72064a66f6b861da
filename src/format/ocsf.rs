//! Open Cybersecurity Schema Framework; what it has no attribute for is under `unmapped`.
//!
//! A consumer may refuse an event without an attribute its class requires, and audit records lack them now and then
//! (a query has no address, a deletion no name): such an attribute is then written as `unknown`, never left out.

use crate::action::{self, Classification, OcsfClass};
use crate::canonical::{TimeText, write_integer};
use crate::event::{AuditEvent, Nested, Outcome};
use crate::format::{Format, OcsfVersion};
use crate::json::Text;
use crate::json::object::Object;
use crate::principal::Principal;

#[cfg(test)]
mod tests;

const UNKNOWN: &str = "unknown";
const OTHER_ACTIVITY: u8 = 99;
const INFORMATIONAL: i64 = 1;

/// Writes the record as an OCSF event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ocsf {
    /// The release of the schema.
    pub version: OcsfVersion,
}

impl Format for Ocsf {
    fn encode(&self, event: &AuditEvent<'_>, out: &mut Vec<u8>) {
        let class = action::of(event);
        Object::write(out, |root| {
            // The class requires a time. A clock would make a replay differ from the first delivery.
            root.integer("time", event.event_time.map_or(0, |time| time.get()));
            write_classification(event, class, root);
            write_status(event, root);
            root.object("metadata", |metadata| self.write_metadata(event, metadata));
            root.object("cloud", |cloud| cloud.text("provider", event.cloud().as_ref()));
            root.object("actor", |actor| self.write_actor(event, actor));
            self.write_subject(event, class, root);
            write_endpoint(event, root);
            // Other classes know `api` only through the cloud profile.
            if class.ocsf == OcsfClass::ApiActivity || event.cloud().is_some() {
                root.object("api", |api| write_api(event, api));
            }
            root.object("http_request", |request| request.text("user_agent", event.user_agent.as_ref()));
            if let Some(status) = event.http_status() {
                root.object("http_response", |response| response.integer("code", status));
            }
            root.object("unmapped", |unmapped| write_unmapped(event, unmapped));
        });
    }
}

/// Uid and name of a class.
fn class_of(class: OcsfClass) -> (i64, &'static str) {
    match class {
        OcsfClass::AccountChange => (3001, "Account Change"),
        OcsfClass::Authentication => (3002, "Authentication"),
        OcsfClass::UserAccess => (3005, "User Access Management"),
        OcsfClass::GroupManagement => (3006, "Group Management"),
        OcsfClass::ApiActivity => (6003, "API Activity"),
    }
}

/// The schema's name of an activity; none for what it has no name for.
fn activity_name(class: OcsfClass, activity: u8) -> Option<&'static str> {
    let names: &[(u8, &str)] = match class {
        OcsfClass::AccountChange => &[
            (1, "Create"),
            (2, "Enable"),
            (3, "Password Change"),
            (4, "Password Reset"),
            (5, "Disable"),
            (6, "Delete"),
            (10, "MFA Factor Enable"),
            (11, "MFA Factor Disable"),
        ],
        OcsfClass::Authentication => &[(1, "Logon"), (2, "Logoff")],
        // Roles have activities of their own from 1.9 on only.
        OcsfClass::UserAccess => &[(1, "Assign Privileges"), (2, "Revoke Privileges")],
        OcsfClass::GroupManagement => &[(3, "Add User"), (4, "Remove User"), (5, "Delete"), (6, "Create")],
        OcsfClass::ApiActivity => &[(1, "Create"), (2, "Read"), (3, "Update"), (4, "Delete")],
    };
    names.iter().find(|(id, _)| *id == activity).map(|(_, name)| *name)
}

fn write_classification(event: &AuditEvent<'_>, class: Classification, root: &mut Object<'_>) {
    let (class_uid, class_name) = class_of(class.ocsf);
    let category_uid = class_uid / 1000;
    root.integer("category_uid", category_uid);
    root.plain(
        "category_name",
        if category_uid == 3 { "Identity & Access Management" } else { "Application Activity" },
    );
    root.integer("class_uid", class_uid);
    root.plain("class_name", class_name);
    root.integer("type_uid", class_uid * 100 + i64::from(class.activity));
    root.integer("activity_id", i64::from(class.activity));
    match activity_name(class.ocsf, class.activity) {
        Some(name) => root.plain("activity_name", name),
        // The schema wants the source's own word beside "other".
        None => text_or(root, "activity_name", event.action_name.as_ref(), "Other"),
    }
    root.integer("severity_id", INFORMATIONAL);
}

fn write_status(event: &AuditEvent<'_>, root: &mut Object<'_>) {
    let (id, name) = match event.outcome() {
        Outcome::Unknown => (0, "Unknown"),
        Outcome::Success => (1, "Success"),
        Outcome::Failure => (2, "Failure"),
    };
    root.integer("status_id", id);
    root.plain("status", name);
    let Some(response) = event.response.value() else { return };
    if let Some(code) = response.status_code {
        root.value("status_code", |out| {
            out.push(b'"');
            write_integer(Some(code), out);
            out.push(b'"');
        });
    }
    root.text("status_detail", response.error_message.as_ref());
}

fn write_endpoint(event: &AuditEvent<'_>, root: &mut Object<'_>) {
    root.object("src_endpoint", |endpoint| match (&event.source_ip_address, &event.service_name) {
        (Some(address), _) if event.source_ip().is_some() => endpoint.text("ip", Some(address)),
        (Some(address), _) => endpoint.text("name", Some(address)),
        (None, Some(service)) => endpoint.text("svc_name", Some(service)),
        (None, None) => endpoint.plain("name", UNKNOWN),
    });
}

fn write_api(event: &AuditEvent<'_>, api: &mut Object<'_>) {
    text_or(api, "operation", event.action_name.as_ref(), UNKNOWN);
    api.object("service", |service| service.text("name", event.service_name.as_ref()));
    api.object("request", |request| request.text("uid", event.request_id.as_ref()));
}

fn text_or(object: &mut Object<'_>, key: &str, text: Option<&Text<'_>>, otherwise: &str) {
    match text {
        Some(text) => object.text(key, Some(text)),
        None => object.plain(key, otherwise),
    }
}

impl Ocsf {
    fn write_metadata(self, event: &AuditEvent<'_>, metadata: &mut Object<'_>) {
        metadata.plain("version", self.version.as_str());
        metadata.object("product", |product| {
            product.plain("name", "Databricks");
            product.plain("vendor_name", "Databricks");
        });
        if event.cloud().is_some() {
            metadata.plains("profiles", &["cloud"]);
        }
        metadata.text("uid", event.event_id.as_ref());
        metadata.text("event_code", event.action_name.as_ref());
        metadata.text("log_name", event.service_name.as_ref());
        metadata.text("log_version", event.version.as_ref());
        metadata.text("correlation_uid", event.request_id.as_ref());
        metadata.text("tenant_uid", event.account_id.as_ref());
        if event.event_time.is_some() {
            metadata.value("original_time", |out| TimeText::of(event).write(out));
        }
        if self.version >= OcsfVersion::V1_6 && event.is_truncated() {
            metadata.value("is_truncated", |out| out.extend_from_slice(b"true"));
        }
    }

    fn write_actor(self, event: &AuditEvent<'_>, actor: &mut Object<'_>) {
        if let Some(identity) = event.user() {
            actor.object("user", |user| self.write_user(Some(identity), None, user));
        }
        actor.object("session", |session| session.text("uid", event.session_id.as_ref()));
        if event.user().is_none() && event.session_id.is_none() {
            text_or(actor, "app_name", event.service_name.as_ref(), UNKNOWN);
        }
    }

    /// Writes whom the event is about, which the classes of identity and access management require.
    fn write_subject(self, event: &AuditEvent<'_>, class: Classification, root: &mut Object<'_>) {
        match class.ocsf {
            OcsfClass::ApiActivity => {}
            OcsfClass::Authentication => {
                let named = event.parameter(&["user", "userName"]);
                let identity = event.user().or(named.as_ref());
                root.object("user", |user| self.write_user(identity, None, user));
                root.object("service", |service| {
                    service.plain("name", "Databricks");
                    service.text("uid", event.workspace_id.as_ref());
                });
            }
            OcsfClass::AccountChange | OcsfClass::UserAccess => {
                let (name, uid) = target_user(event);
                // Passwords and factors are also changed by their owner, whom the parameters then do not name.
                let own = matches!((class.ocsf, class.activity), (OcsfClass::AccountChange, 3 | 10 | 11));
                let name = name.as_ref().or(event.user().filter(|_| own && uid.is_none()));
                root.object("user", |user| self.write_user(name, uid.as_ref(), user));
                if class.ocsf == OcsfClass::UserAccess {
                    write_privileges(event, class, root);
                }
            }
            OcsfClass::GroupManagement => {
                let (name, uid) =
                    (event.parameter(&["targetGroupName"]), event.parameter(&["targetGroupId"]));
                root.object("group", |group| {
                    if name.is_some() || uid.is_none() {
                        text_or(group, "name", name.as_ref(), UNKNOWN);
                    }
                    group.text("uid", uid.as_ref());
                });
                let (name, uid) = target_user(event);
                if name.is_some() || uid.is_some() {
                    root.object("user", |user| self.write_user(name.as_ref(), uid.as_ref(), user));
                }
            }
        }
    }

    /// Writes a user by its name (of any form) and its id; the schema wants at least one of both.
    fn write_user(self, name: Option<&Text<'_>>, uid: Option<&Text<'_>>, user: &mut Object<'_>) {
        let kind = name.map(Principal::of);
        let (type_id, kind_name) = match kind {
            Some(Principal::Email) => (1, "User"),
            Some(Principal::System) => (3, "System"),
            Some(Principal::Uuid) if self.version >= OcsfVersion::V1_6 => (4, "Service"),
            Some(Principal::Uuid) => (i64::from(OTHER_ACTIVITY), "Service"),
            Some(Principal::Name) | None => (0, "Unknown"),
        };
        match name {
            None if uid.is_some() => {}
            _ => text_or(user, "name", name, UNKNOWN),
        }
        let own_uid = name.filter(|_| kind == Some(Principal::Uuid));
        user.text("uid", uid.or(own_uid));
        user.text("email_addr", name.filter(|_| kind == Some(Principal::Email)));
        user.integer("type_id", type_id);
        user.plain("type", kind_name);
    }
}

/// Writes what the user may do from now on or may no longer do. The class requires it.
fn write_privileges(event: &AuditEvent<'_>, class: Classification, root: &mut Object<'_>) {
    let named = event.parameter(&["permission", "permissions", "aclPermissionSet", "role"]);
    let implied = if class.types.contains(&"admin") { "admin" } else { UNKNOWN };
    match named {
        Some(named) => root.texts("privileges", [&named]),
        None => root.plains("privileges", &[implied]),
    }
}

fn target_user<'a>(event: &'a AuditEvent<'_>) -> (Option<Text<'a>>, Option<Text<'a>>) {
    (
        event.parameter(&[
            "targetUserName",
            "targetServicePrincipalName",
            "targetServicePrincipal",
            "principal",
        ]),
        event.parameter(&["targetUserId", "principal_id"]),
    )
}

/// Writes the columns that no attribute above holds, and the parts that fell out of those that do.
fn write_unmapped(event: &AuditEvent<'_>, unmapped: &mut Object<'_>) {
    unmapped.text("workspace_id", event.workspace_id.as_ref());
    unmapped.text("audit_level", event.audit_level.as_ref());
    if let Nested::Value(params) = &event.request_params {
        unmapped.value("request_params", |out| out.extend_from_slice(params.0.as_bytes()));
    }
    write_raw("request_params", &event.request_params, unmapped);
    if let Nested::Value(response) = &event.response {
        unmapped.object("response", |inner| inner.text("result", response.result.as_ref()));
    }
    write_raw("response", &event.response, unmapped);
    if let Nested::Value(identity) = &event.user_identity {
        unmapped.object("user_identity", |inner| inner.text("subject_name", identity.subject_name.as_ref()));
    }
    write_raw("user_identity", &event.user_identity, unmapped);
    if let Nested::Value(metadata) = &event.identity_metadata {
        unmapped.object("identity_metadata", |inner| {
            inner.text("run_by", metadata.run_by.as_ref());
            inner.text("run_as", metadata.run_as.as_ref());
            inner.text("acting_resource", metadata.acting_resource.as_ref());
        });
    }
    write_raw("identity_metadata", &event.identity_metadata, unmapped);
    unmapped.object("_source", |source| {
        for extra in &event.extras {
            source.member(&extra.key, &extra.value);
        }
    });
}

fn write_raw<T>(key: &str, nested: &Nested<'_, T>, unmapped: &mut Object<'_>) {
    if let Nested::Raw(text) = nested {
        unmapped.object(key, |raw| raw.text("_raw", Some(text)));
    }
}
