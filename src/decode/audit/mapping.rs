//! From the members of one record to its event.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::columns::{Column, Columns};
use super::values::Empty;
use super::{Members, Shape, event_id, values};
use crate::chunk::Origin;
use crate::decode::Gaps;
use crate::event::{AuditEvent, Extra, Nested};
use crate::json::scan::Seen;
use crate::json::{self, Kind, Text, apart, members};
use crate::time::Millis;

/// Services whose events Azure logs per account although the record does not say so.
const ACCOUNT_LEVEL_SERVICES: [&str; 4] =
    ["unityCatalog", "accountBillableUsage", "accountsAccessControl", "accountsManager"];

const TRUE: Cow<'static, str> = Cow::Borrowed("true");

/// Most extras whose names are compared one with the other; of more, a set is made.
const FEW: usize = 16;

/// Numbers extras that have the same name, and members within them: the last keeps the name, for those that we add come last.
fn tell_apart(extras: &mut [Extra<'_>]) {
    for extra in &mut *extras {
        if let Kind::Object | Kind::Array = json::kind(&extra.value)
            && let Some(apart) = apart::told_apart(&extra.value)
        {
            extra.value = Cow::Owned(apart);
        }
    }
    let unique = match extras.len() {
        0..=FEW => extras
            .iter()
            .enumerate()
            .all(|(at, extra)| extras.iter().skip(at + 1).all(|other| other.key != extra.key)),
        _ => extras.iter().map(|extra| extra.key.quoted()).collect::<HashSet<_>>().len() == extras.len(),
    };
    if unique {
        return;
    }
    apart::number(&mut extras.iter_mut().map(|extra| &mut extra.key).collect::<Vec<_>>());
}

/// An event on its way, and the values that columns are derived from once all members are known.
pub(super) struct Mapping<'a> {
    event: AuditEvent<'a>,
    shape: Shape,
    columns: Columns,
    /// The members at hand are those of `properties`, which is opened once: a record could nest more of them than the stack
    /// can take.
    in_properties: bool,
    org_id: Option<Text<'a>>,
    resource_id: Option<Text<'a>>,
    operation_name: Option<Text<'a>>,
    event_date: Option<&'a str>,
    fallback_id: Option<Text<'a>>,
}

impl<'a> Mapping<'a> {
    pub(super) fn new(raw: &'a str) -> Self {
        Self {
            event: AuditEvent { raw: raw.as_bytes(), ..AuditEvent::default() },
            shape: Shape::Unknown,
            columns: Columns::of(Shape::Unknown),
            in_properties: false,
            org_id: None,
            resource_id: None,
            operation_name: None,
            event_date: None,
            fallback_id: None,
        }
    }

    /// Adds `key: true` to the extras; the key is given with its quotes.
    pub(super) fn flag(&mut self, quoted_key: &'static str) {
        self.event.extras.push(Extra { key: Text::from_static(quoted_key), value: TRUE });
    }

    fn keep(&mut self, key: Text<'a>, value: &'a str, seen: Seen) {
        self.event.extras.push(Extra { key, value: values::compact(value, seen) });
    }

    /// A member of GCP's wrapper around the record.
    pub(super) fn wrapper_member(&mut self, key: &Text<'a>, value: &'a str, seen: Seen) {
        if key.is("insertId") {
            self.fallback_id = values::text(value, seen, Empty::IsNone);
        }
        self.keep(Text::from_canonical(format!("\"gcp.{}\"", key.escaped())), value, seen);
    }

    pub(super) fn members<'m: 'a>(&mut self, shape: Shape, members: &Members<'m>) {
        self.shape = shape;
        self.columns = Columns::of(shape);
        for (key, value, seen) in members {
            self.member(key, value, *seen);
        }
    }

    fn member(&mut self, key: &Text<'a>, value: &'a str, seen: Seen) {
        let Some(column) = self.columns.find(key.escaped()) else {
            return self.keep(key.clone(), value, seen);
        };
        let event = &mut self.event;
        // Where a text may be empty, and where an empty one means none.
        let (slot, empty) = match column {
            Column::AccountId => (&mut event.account_id, Empty::IsNone),
            Column::WorkspaceId => (&mut event.workspace_id, Empty::IsNone),
            Column::OrgId => (&mut self.org_id, Empty::IsNone),
            Column::Version => (&mut event.version, Empty::IsText),
            Column::AuditLevel => (&mut event.audit_level, Empty::IsText),
            Column::EventId => (&mut event.event_id, Empty::IsNone),
            Column::ServiceName => (&mut event.service_name, Empty::IsText),
            Column::ActionName => (&mut event.action_name, Empty::IsText),
            Column::UserAgent => (&mut event.user_agent, Empty::IsNone),
            Column::SessionId => (&mut event.session_id, Empty::IsNone),
            Column::RequestId => (&mut event.request_id, Empty::IsText),
            Column::SourceIpAddress => (&mut event.source_ip_address, Empty::IsNone),
            Column::OperationName => (&mut self.operation_name, Empty::IsText),
            Column::ResourceId => (&mut self.resource_id, Empty::IsText),
            Column::Kept(kept) => return self.keep(kept.name(), value, seen),
            _ => return self.special_member(column, key, value, seen),
        };
        let text = values::text(value, seen, empty);
        // A key that comes twice (in two cases, or in the record and its properties): the first value wins, none is lost.
        if slot.is_none() {
            *slot = text;
        } else if text != *slot {
            self.keep(key.clone(), value, seen);
        }
    }

    fn special_member(&mut self, column: Column, key: &Text<'a>, value: &'a str, seen: Seen) {
        let event = &mut self.event;
        let taken = match column {
            Column::EventTime => {
                event.event_time.is_none() && {
                    event.event_time = Millis::parse(&values::unquoted(value));
                    event.event_time.is_some()
                }
            }
            Column::EventDate if self.event_date.is_none() => {
                self.event_date = Some(value);
                true
            }
            Column::UserIdentity if event.user_identity == Nested::Null => {
                event.user_identity = values::identity(value, seen, &mut event.extras);
                true
            }
            Column::Response if event.response == Nested::Null => {
                event.response = values::response(value, seen, &mut event.extras);
                true
            }
            Column::IdentityMetadata if event.identity_metadata == Nested::Null => {
                event.identity_metadata = values::run_identity(value, seen, &mut event.extras);
                true
            }
            Column::RequestParams if event.request_params == Nested::Null => {
                let (params, truncated) = values::params(value, seen);
                event.request_params = params;
                if truncated {
                    self.flag("\"truncated\"");
                }
                true
            }
            Column::Properties if !self.in_properties && json::kind(value) == Kind::Object => {
                self.in_properties = true;
                for (key, value) in members(value) {
                    self.member(&Text::from_json(key), value, Seen::UNKNOWN);
                }
                self.in_properties = false;
                true
            }
            _ => false,
        };
        if !taken && json::kind(value) != Kind::Null {
            self.keep(key.clone(), value, seen);
        }
    }

    /// Derives what the record does not say and gives the event its id.
    pub(super) fn finish(
        &mut self,
        gaps: &Gaps,
        origin: &'a Origin,
        occurrence: u32,
        scratch: &'a mut Vec<u8>,
        enveloped: bool,
        seen: &mut HashMap<[u8; 32], u32>,
    ) -> &mut AuditEvent<'a> {
        self.operation();
        self.address();
        self.account_and_workspace(gaps, origin);
        self.audit_level();
        self.aliases();
        // Redundant only where it is what the time says.
        if let Some(date) = self.event_date.filter(|date| json::kind(date) != Kind::Null)
            && self.event.event_time.is_none_or(|time| values::unquoted(date) != time.date().to_string())
        {
            self.keep(Text::from_static("\"event_date\""), date, Seen::UNKNOWN);
        }
        let event = &mut self.event;
        match event.event_id.take().or(self.fallback_id.take()) {
            Some(id) => event.event_id = Some(id),
            None if enveloped => event_id::derive_enveloped(event, occurrence, scratch, seen),
            None => event_id::derive(event, occurrence, scratch),
        }
        // Azure's shapes say where the event happened, a copy in another cloud's bucket does not.
        let azure = matches!(self.shape, Shape::AzureDiagnostic | Shape::LogAnalytics);
        if let Some(cloud) = if azure { Some("azure") } else { origin.cloud } {
            event.extras.push(Extra {
                key: Text::from_static("\"cloud\""),
                value: match cloud {
                    "aws" => Cow::Borrowed("\"aws\""),
                    "gcp" => Cow::Borrowed("\"gcp\""),
                    _ => Cow::Borrowed("\"azure\""),
                },
            });
        }
        if !origin.object_json.is_empty() {
            event.extras.push(Extra {
                key: Text::from_static("\"object\""),
                value: Cow::Borrowed(&origin.object_json),
            });
        }
        tell_apart(&mut event.extras);
        event
    }

    /// `Microsoft.Databricks/<service>/<action>` stands in for names the record leaves out.
    fn operation(&mut self) {
        let Some(operation) = self.operation_name.take() else { return };
        let names = operation.plain();
        let mut parts = names.split('/').skip(1);
        let (service, action) = (parts.next(), parts.next());
        if self.event.service_name.is_none() {
            self.event.service_name = service.map(Text::from_plain);
        }
        if self.event.action_name.is_none() {
            self.event.action_name = action.map(Text::from_plain);
        }
        self.event.extras.push(Extra {
            key: Text::from_static("\"azure.operation_name\""),
            value: operation.quoted().to_owned().into(),
        });
    }

    fn address(&mut self) {
        let Some(text) = self.event.source_ip_address.take() else { return };
        let address = values::address(text);
        self.event.source_ip_address = Some(address.text);
        if let Some(port) = address.port {
            self.event.extras.push(Extra {
                key: Text::from_static("\"source_port\""),
                value: Cow::Owned(port.to_string()),
            });
        }
        if !address.valid {
            self.flag("\"source_ip_invalid\"");
        }
    }

    fn account_and_workspace(&mut self, gaps: &Gaps, origin: &'a Origin) {
        let event = &mut self.event;
        if event.account_id.is_none() {
            event.account_id = gaps.account_id.as_deref().map(Text::from_plain);
        }
        if let Some(org) = self.org_id.take() {
            match &event.workspace_id {
                None => event.workspace_id = Some(org),
                Some(workspace) if *workspace != org => event.extras.push(Extra {
                    key: Text::from_static("\"org_id\""),
                    value: org.quoted().to_owned().into(),
                }),
                Some(_) => {}
            }
        }
        if let Some(resource) = self.resource_id.take() {
            let lower = resource.plain().to_ascii_lowercase();
            let known = gaps.workspace_ids.get(&lower).map(String::as_str);
            let known = known.or_else(|| origin.workspace_ids.get(&lower).map(|id| &**id));
            event.workspace_id = event.workspace_id.take().or_else(|| known.map(Text::from_plain));
            event.extras.push(Extra {
                key: Text::from_static("\"azure.resource_id\""),
                value: resource.quoted().to_owned().into(),
            });
        }
        let azure = matches!(self.shape, Shape::AzureDiagnostic | Shape::LogAnalytics);
        if azure && event.workspace_id.is_none() && origin.workspace.is_none() {
            let named = event.request_params.value().and_then(|params| params.get(&["workspace_id"]));
            event.workspace_id = named.map(Text::into_owned);
        }
        let Some(path) = origin.workspace.as_deref() else { return };
        match &event.workspace_id {
            None => event.workspace_id = Some(Text::from_plain(path)),
            // Kept as the record says, and visible: somebody may have copied objects between folders.
            Some(id) if !id.is(path) && !id.is("0") && path != "0" => event.extras.push(Extra {
                key: Text::from_static("\"path_workspace_id\""),
                value: Text::from_plain(path).quoted().to_owned().into(),
            }),
            Some(_) => {}
        }
    }

    fn audit_level(&mut self) {
        let azure = matches!(self.shape, Shape::AzureDiagnostic | Shape::LogAnalytics);
        if !azure || self.event.audit_level.is_some() {
            return;
        }
        let account = self
            .event
            .service_name
            .as_ref()
            .is_some_and(|service| ACCOUNT_LEVEL_SERVICES.iter().any(|name| service.is(name)));
        let level = if account { "\"ACCOUNT_LEVEL\"" } else { "\"WORKSPACE_LEVEL\"" };
        self.event.audit_level = Some(Text::from_static(level));
        self.flag("\"audit_level_derived\"");
    }

    /// Deprecated action names of Databricks SQL keep their spelling; their present name goes beside it.
    fn aliases(&mut self) {
        let (Some(service), Some(action)) = (&self.event.service_name, &self.event.action_name) else {
            return;
        };
        if !service.is("databrickssql") {
            return;
        }
        let alias = [("Endpoint", "Warehouse"), ("AlertDestination", "NotificationDestination")]
            .into_iter()
            .find(|(old, _)| action.escaped().contains(old))
            .map(|(old, new)| Text::from_plain(&action.plain().replace(old, new)));
        if let Some(alias) = alias {
            self.event.extras.push(Extra {
                key: Text::from_static("\"action_alias\""),
                value: alias.quoted().to_owned().into(),
            });
        }
    }
}
