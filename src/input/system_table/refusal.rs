//! What an answer that is no success means: pass the time, or tell a human which right or key is wrong.

use std::time::Duration;

use crate::http::NoAnswer;
use crate::input::InputError;
use crate::secret::excerpt;

/// Most characters of the workspace's message that are repeated.
const MOST_SAID: usize = 300;
/// How the statement fails whose rows do not fit into the answer.
const TOO_LARGE: &str = "inline byte limit exceeded";

/// By what a message contains, in lower case: the first line that fits says what to do.
const REMEDIES: &[(&[&str], &str)] = &[
    (&["ip acl"], "add the address of this machine to the workspace's IP access list"),
    (&["ip access list"], "add the address of this machine to the workspace's IP access list"),
    (&["not a valid endpoint id"], "check `warehouse_id`: the workspace has no such SQL warehouse"),
    (&["warehouse", "does not exist"], "check `warehouse_id`: the workspace has no such SQL warehouse"),
    (&["warehouse", "was deleted"], "check `warehouse_id`: the workspace has no such SQL warehouse"),
    (&["can use"], "grant the reader CAN USE on the SQL warehouse of `warehouse_id`"),
    (&["permission", "warehouse"], "grant the reader CAN USE on the SQL warehouse of `warehouse_id`"),
    (&["permission", "endpoint"], "grant the reader CAN USE on the SQL warehouse of `warehouse_id`"),
    (&["use catalog"], "GRANT USE CATALOG ON CATALOG system TO the reader"),
    (&["use schema"], "GRANT USE SCHEMA ON SCHEMA system.access TO the reader"),
    (&["does not have select"], "GRANT SELECT ON TABLE system.access.audit TO the reader"),
    (&["insufficient", "select"], "GRANT SELECT ON TABLE system.access.audit TO the reader"),
    (
        &["insufficient"],
        "grant the reader USE CATALOG on system, USE SCHEMA on system.access and SELECT on system.access.audit",
    ),
    (
        &["cannot be found"],
        "enable the system schema `access` for the metastore of `url`, and grant the reader USE CATALOG on system, \
         USE SCHEMA on system.access and SELECT on system.access.audit",
    ),
    (
        &["'system", "does not exist"],
        "enable the system schema `access` for the metastore of `url`, and grant the reader USE CATALOG on system, \
         USE SCHEMA on system.access and SELECT on system.access.audit",
    ),
    (
        &["unresolved_column"],
        "the table has other columns than this release reads: look for a newer auditferry",
    ),
];

/// An answer that is no success, or the error of a statement.
#[derive(Clone, Debug)]
pub(super) struct Refusal<'a> {
    /// What was tried, on what.
    pub(super) action: String,
    /// HTTP status; 200 where it is the statement that failed.
    pub(super) status: u16,
    /// Databricks' `error_code`.
    pub(super) code: &'a str,
    /// Its message.
    pub(super) message: &'a str,
    /// The wait it asked for.
    pub(super) retry_after: Option<Duration>,
}

impl Refusal<'_> {
    /// True if the rows were more than an answer may hold.
    pub(super) fn is_too_large(&self) -> bool {
        self.message.to_ascii_lowercase().contains(TOO_LARGE)
    }

    /// Of a request that logs in with what stands under `keys`.
    pub(super) fn of_login(self, keys: &str) -> InputError {
        match self.status {
            400 | 401 | 403 => {
                let remedy = format!("check {keys}: the secret may be wrong or have expired");
                self.refused(remedy)
            }
            300..=399 | 404 => self.refused("check that `url` is the address of a workspace".to_owned()),
            _ => self.passing(),
        }
    }

    /// Of a request or a statement.
    pub(super) fn of_request(self, keys: &str) -> InputError {
        let text = format!("{} {}", self.code, self.message).to_ascii_lowercase();
        let known = REMEDIES.iter().find(|(words, _)| words.iter().all(|word| text.contains(word)));
        match (self.status, known) {
            (429 | 500..=599, _) => self.passing(),
            (_, Some((_, remedy))) => self.refused((*remedy).to_owned()),
            (200, None) => self.passing(),
            (401, None) => {
                let remedy = format!("check {keys}: it may have expired or been revoked");
                self.refused(remedy)
            }
            (403, None) => {
                self.refused("grant the reader CAN USE on the SQL warehouse of `warehouse_id`".to_owned())
            }
            (300..=399, None) => self.refused("check that `url` is the address of a workspace".to_owned()),
            (404, None) => self.refused("check `url` and `warehouse_id`".to_owned()),
            (400..=499, None) => {
                self.refused("check `url`, `warehouse_id` and the reader's rights".to_owned())
            }
            _ => self.passing(),
        }
    }

    fn refused(self, remedy: String) -> InputError {
        let source = self.said().into();
        InputError::Refused { action: self.action, source, remedy }
    }

    fn passing(self) -> InputError {
        let source = self.said().into();
        match self.retry_after {
            Some(after) => InputError::Busy { action: self.action, source, after },
            None => InputError::Transient { action: self.action, source },
        }
    }

    /// What the workspace said, on one line of bounded length.
    fn said(&self) -> String {
        let mut said = match self.status {
            200 => String::new(),
            status => format!("the workspace answered {status}"),
        };
        for part in [self.code, self.message] {
            let line = excerpt(part, MOST_SAID);
            if line.trim().is_empty() || said.contains(line.trim()) {
                continue;
            }
            if !said.is_empty() {
                said.push_str(": ");
            }
            said.push_str(line.trim().trim_end_matches('.'));
        }
        if said.is_empty() { "the workspace did not say why".to_owned() } else { said }
    }
}

/// A request without an answer.
pub(super) fn no_answer(action: String, failure: &NoAnswer) -> InputError {
    InputError::Transient { action, source: format!("{}{}", failure.cause, failure.remedy).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(status: u16, code: &str, message: &str) -> InputError {
        let action = "cannot read".to_owned();
        Refusal { action, status, code, message, retry_after: None }.of_request("`token`")
    }

    #[test]
    fn a_human_is_told_what_to_do_in_one_sentence() {
        for (status, code, message, told) in [
            (400, "INVALID_PARAMETER_VALUE", "4f2a is not a valid endpoint id.", "check `warehouse_id`"),
            (404, "RESOURCE_DOES_NOT_EXIST", "SQL warehouse 4f2a does not exist.", "check `warehouse_id`"),
            (
                403,
                "PERMISSION_DENIED",
                "You do not have permission to use the SQL Warehouse. CAN USE is required.",
                "CAN USE on the SQL warehouse",
            ),
            (403, "PERMISSION_DENIED", "", "CAN USE on the SQL warehouse"),
            (
                403,
                "PERMISSION_DENIED",
                "Source IP address 10.0.0.1 is blocked by Databricks IP ACL",
                "IP access list",
            ),
            (401, "UNAUTHENTICATED", "Token is expired", "check `token`"),
            (
                200,
                "BAD_REQUEST",
                "[INSUFFICIENT_PERMISSIONS] Insufficient privileges: User does not have USE SCHEMA on Schema 'system.access'. SQLSTATE: 42501",
                "GRANT USE SCHEMA ON SCHEMA system.access",
            ),
            (
                200,
                "BAD_REQUEST",
                "[INSUFFICIENT_PERMISSIONS] Insufficient privileges: User does not have SELECT on Table 'system.access.audit'.",
                "GRANT SELECT ON TABLE system.access.audit",
            ),
            (
                200,
                "BAD_REQUEST",
                "[INSUFFICIENT_PERMISSIONS] Insufficient privileges",
                "USE SCHEMA on system.access and SELECT",
            ),
            (
                200,
                "BAD_REQUEST",
                "[TABLE_OR_VIEW_NOT_FOUND] The table or view `system`.`access`.`audit` cannot be found.",
                "enable the system schema `access`",
            ),
            (200, "BAD_REQUEST", "[UNRESOLVED_COLUMN.WITH_SUGGESTION] …", "newer auditferry"),
            (302, "", "", "check that `url`"),
            (404, "ENDPOINT_NOT_FOUND", "No API found for 'POST /api/2.0/sql/statements'", "check `url` and"),
            (404, "", "", "check `url` and `warehouse_id`"),
        ] {
            let error = meaning(status, code, message);
            let text = error.to_string();
            assert!(error.needs_a_human() && text.contains(told) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn what_passes_is_waited_for() {
        for (status, code, message) in [
            (429, "REQUEST_LIMIT_EXCEEDED", "you do not have permission to hurry"),
            (503, "TEMPORARILY_UNAVAILABLE", ""),
            (200, "RESOURCE_EXHAUSTED", "the cluster could not start: quota"),
        ] {
            assert!(!meaning(status, code, message).needs_a_human(), "{status} {code}");
        }
        let after = Some(Duration::from_secs(17));
        let action = "cannot read".to_owned();
        let busy = Refusal { action, status: 429, code: "", message: "slow\ndown.", retry_after: after };
        assert_eq!(busy.clone().of_request("").retry_after(), after);
        assert_eq!(busy.of_request("").to_string(), "cannot read: the workspace answered 429: slow down");
    }
}
