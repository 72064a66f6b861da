//! What an action is in the terms of a SIEM: one table from `(service, action)` to an ECS and an OCSF classification.
//!
//! An action that no row names is classified by the words of its name and the subject of its service: Databricks adds
//! actions every month, and most say what they do (`createX`, `getX`, `changeXAcl`).

use std::collections::HashMap;
use std::sync::LazyLock;

use Class::{Account, AdminGrant, CodeRun, Configuration, Credentials, DataOut, Group, Login, Logout, Other};
use OcsfClass::{AccountChange, ApiActivity, Authentication, GroupManagement, UserAccess};

use crate::event::AuditEvent;
use crate::json::Text;

/// What a security engineer asks of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody or something authenticates.
    Login,
    /// A session ends.
    Logout,
    /// A user or service principal comes, goes or changes.
    Account,
    /// Rights are given or taken.
    AdminGrant,
    /// A group or its members change.
    Group,
    /// Settings that guard the workspace or the account change.
    Configuration,
    /// A secret or token is made, shown or taken away.
    Credentials,
    /// Data leaves.
    DataOut,
    /// Code or a query runs.
    CodeRun,
    /// Anything else.
    Other,
}

/// The event classes of OCSF that audit records fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OcsfClass {
    /// 3001
    AccountChange,
    /// 3002
    Authentication,
    /// 3005
    UserAccess,
    /// 3006
    GroupManagement,
    /// 6003
    ApiActivity,
}

/// How an action is classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// The question it answers.
    pub class: Class,
    /// `event.category` of ECS.
    pub categories: &'static [&'static str],
    /// `event.type` of ECS.
    pub types: &'static [&'static str],
    /// The event class of OCSF.
    pub ocsf: OcsfClass,
    /// `activity_id` within the OCSF class; 99 is "other".
    pub activity: u8,
}

struct Row {
    service: &'static str,
    actions: &'static [&'static str],
    classification: Classification,
}

const ANY: &str = "";

type Names = &'static [&'static str];

const fn row(
    service: &'static str,
    actions: Names,
    class: Class,
    (categories, types): (Names, Names),
    (ocsf, activity): (OcsfClass, u8),
) -> Row {
    Row { service, actions, classification: Classification { class, categories, types, ocsf, activity } }
}

const AUTH: Names = &["authentication"];
const IAM: Names = &["iam"];
const CONF: Names = &["configuration"];
const DATABASE: Names = &["database"];
const FILE: Names = &["file"];

/// Of two rows for one action the first that fits the service holds.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(ANY, &["aadBrowserLogin", "aadTokenLogin", "certLogin", "jwtLogin", "login", "mfaLogin", "oidcBrowserLogin",
               "oidcTokenAuthorization", "passwordVerifyAuthentication", "samlLogin", "tokenLogin",
               "accountInHouseOAuthClientAuthentication", "workspaceInHouseOAuthClientAuthentication"],
                                                Login,  (AUTH, &["start"]), (Authentication, 1)),
    row(ANY, &["IpAccessDenied"],               Login,  (&["authentication", "network"], &["info", "denied"]), (Authentication, 1)),
    row(ANY, &["logout"],                       Logout, (AUTH, &["end"]),   (Authentication, 2)),
    row("webTerminal", &["startSession"],       CodeRun, (&["session"], &["start"]), (ApiActivity, 99)),
    row("webTerminal", &["closeSession"],       CodeRun, (&["session"], &["end"]),   (ApiActivity, 99)),

    row("accounts", &["add"],                   Account, (IAM, &["user", "creation"]), (AccountChange, 1)),
    row("accounts", &["delete"],                Account, (IAM, &["user", "deletion"]), (AccountChange, 6)),
    row(ANY, &["createUser", "createServicePrincipal"],
                                                Account, (IAM, &["user", "creation"]), (AccountChange, 1)),
    row(ANY, &["deleteUser", "removeUser", "deleteServicePrincipal", "removeServicePrincipal"],
                                                Account, (IAM, &["user", "deletion"]), (AccountChange, 6)),
    row(ANY, &["activateUser"],                 Account, (IAM, &["user", "change"]),   (AccountChange, 2)),
    row(ANY, &["deactivateUser"],               Account, (IAM, &["user", "change"]),   (AccountChange, 5)),
    row(ANY, &["changePassword"],               Account, (IAM, &["user", "change"]),   (AccountChange, 3)),
    row(ANY, &["resetPassword"],                Account, (IAM, &["user", "change"]),   (AccountChange, 4)),
    row(ANY, &["updateUser", "validateEmail"],  Account, (IAM, &["user", "change"]),   (AccountChange, 99)),
    row(ANY, &["mfaAddKey"],                    Credentials, (IAM, &["user", "change"]), (AccountChange, 10)),
    row(ANY, &["mfaDeleteKey"],                 Credentials, (IAM, &["user", "change"]), (AccountChange, 11)),

    row(ANY, &["addAdmin", "changeAccountOwner", "setAccountAdmin", "setAdmin"],
                                                AdminGrant, (IAM, &["admin", "user", "change"]), (UserAccess, 1)),
    row(ANY, &["removeAccountAdmin", "removeAdmin"],
                                                AdminGrant, (IAM, &["admin", "user", "change"]), (UserAccess, 2)),
    row("workspace", &["updatePermissionAssignment"], AdminGrant, (IAM, &["user", "change"]), (UserAccess, 1)),
    row("workspace", &["updateRoleAssignment"], AdminGrant, (IAM, &["user", "change"]), (UserAccess, 99)),
    row("secrets", &["putAcl"],                 AdminGrant, (IAM, &["user", "change"]), (UserAccess, 1)),
    row("secrets", &["deleteAcl"],              AdminGrant, (IAM, &["user", "change"]), (UserAccess, 2)),
    // These name whom they favour only inside a JSON text, if at all: no user for OCSF's user access class.
    row(ANY, &["changePermissions", "updatePermissions", "changeSecurableOwner", "denyPermission",
               "grantPermission", "revokePermission", "updateRuleSet", "transferObjectOwnership"],
                                                AdminGrant, (IAM, &["change"]), (ApiActivity, 3)),

    row(ANY, &["createGroup"],                  Group, (IAM, &["group", "creation"]), (GroupManagement, 6)),
    row(ANY, &["deleteGroup", "removeGroup"],   Group, (IAM, &["group", "deletion"]), (GroupManagement, 5)),
    row(ANY, &["updateGroup"],                  Group, (IAM, &["group", "change"]),   (GroupManagement, 99)),
    row(ANY, &["addPrincipalToGroup", "addPrincipalsToGroup"],
                                                Group, (IAM, &["group", "change"]),   (GroupManagement, 3)),
    row(ANY, &["removePrincipalFromGroup", "removePrincipalsFromGroup"],
                                                Group, (IAM, &["group", "change"]),   (GroupManagement, 4)),

    row(ANY, &["deleteSetting", "setSetting", "updateAccountSettings", "updateOrganizationSetting",
               "updateWorkspaceSettings", "workspaceConfEdit"],
                                                Configuration, (CONF, &["change"]),   (ApiActivity, 3)),
    row(ANY, &["createIpAccessList"],           Configuration, (CONF, &["creation"]), (ApiActivity, 1)),
    row(ANY, &["updateIpAccessList"],           Configuration, (CONF, &["change"]),   (ApiActivity, 3)),
    row(ANY, &["deleteIpAccessList"],           Configuration, (CONF, &["deletion"]), (ApiActivity, 4)),
    row("ssoConfigBackend", &["create"],        Configuration, (&["iam", "configuration"], &["creation"]), (ApiActivity, 1)),
    row("ssoConfigBackend", &["update"],        Configuration, (&["iam", "configuration"], &["change"]),   (ApiActivity, 3)),
    row("ssoConfigBackend", &["delete"],        Configuration, (&["iam", "configuration"], &["deletion"]), (ApiActivity, 4)),

    row(ANY, &["generateDbToken", "mintOAuthAuthorizationCode", "mintOAuthToken"],
                                                Credentials, (IAM, &["creation"]),    (ApiActivity, 1)),
    row(ANY, &["garbageCollectDbToken", "revokeDbToken"],
                                                Credentials, (IAM, &["deletion"]),    (ApiActivity, 4)),
    row(ANY, &["generateTemporaryPathCredential", "generateTemporaryTableCredential", "generateTemporaryVolumeCredential"],
                                                Credentials, (&["iam", "database"], &["creation", "access"]), (ApiActivity, 1)),
    row("secrets", &["getSecret"],              Credentials, (CONF, &["access"]),     (ApiActivity, 2)),
    row("dbfs", &["mount"],                     Credentials, (CONF, &["creation"]),   (ApiActivity, 1)),
    row(ANY, &["createConnection", "createStorageCredential"],
                                                Credentials, (CONF, &["creation"]),   (ApiActivity, 1)),

    row(ANY, &["downloadLargeResults", "downloadPreviewResults", "downloadQueryResult", "deltaSharingQueriedTable",
               "deltaSharingQueriedTableChanges", "deltaSharingQueryTable", "deltaSharingQueryTableChanges"],
                                                DataOut, (DATABASE, &["access"]), (ApiActivity, 2)),
    row(ANY, &["filesGet", "getModelVersionDownloadUri", "getModelVersionSignedDownloadUri", "workspaceExport"],
                                                DataOut, (FILE, &["access"]),     (ApiActivity, 2)),

    row(ANY, &["runCommand"],                   CodeRun, (&["process"], &["start"]), (ApiActivity, 99)),
    row(ANY, &["commandSubmit"],                CodeRun, (DATABASE, &["access"]), (ApiActivity, 99)),
    row(ANY, &["commandFinish"],                CodeRun, (DATABASE, &["info"]),   (ApiActivity, 99)),
];

/// `changeClusterAcl`, `changePipelineAcls`: every service has its own.
const ACCESS_LIST_CHANGED: Classification = Classification {
    class: AdminGrant,
    categories: IAM,
    types: &["user", "change"],
    ocsf: UserAccess,
    activity: 1,
};

/// What an unlisted action is about, by its service. Everything is a call of an API besides.
#[rustfmt::skip]
const SUBJECTS: &[(Names, Names)] = &[
    (&["iam", "api"], &["accounts", "accountsAccessControl", "groups", "iamRole", "oauth2", "servicePrincipalCredentials"]),
    (&["database", "api"], &["databrickssql", "featureStore", "lineageTracking", "sqlPermissions", "unityCatalog"]),
    (&["file", "api"], &["dbfs", "filesystem", "ingestion", "mlflowAcledArtifact", "notebook", "repos", "workspaceFiles"]),
    (&["configuration", "api"], &["accountsManager", "clusterLibraries", "clusterPolicies", "clusters", "deltaPipelines",
                                  "gitCredentials", "globalInitScripts", "instancePools", "jobs", "secrets",
                                  "ssoConfigBackend", "workspace"]),
    (&["session", "api"], &["ssh", "webTerminal"]),
];

/// What an unlisted action does, by the first word of its name that is here: the words, ECS's type, OCSF's activity.
#[rustfmt::skip]
const VERBS: &[(Names, Names, u8)] = &[
    (&["add", "clone", "create", "fork", "generate", "import", "install", "mint", "mkdirs", "mount", "put", "register",
       "upload", "write"], &["creation"], 1),
    (&["describe", "download", "export", "get", "head", "list", "load", "open", "preview", "read", "retrieve", "search",
       "show", "view"], &["access"], 2),
    (&["activate", "approve", "attach", "change", "deactivate", "detach", "disable", "edit", "enable", "grant", "move",
       "patch", "publish", "reject", "rename", "reset", "resize", "restore", "revoke", "rotate", "set", "transfer",
       "transition", "unpublish", "update"], &["change"], 3),
    (&["delete", "discard", "drop", "purge", "remove", "trash", "uninstall", "unmount"], &["deletion"], 4),
    // Named so that a later word of the name does not decide: `startUpdate` updates nothing.
    (&["cancel", "execute", "reach", "repair", "request", "restart", "run", "send", "start", "stop", "submit", "test",
       "trigger"], &["info"], 99),
];

static ROWS_OF_ACTION: LazyLock<HashMap<&'static str, Vec<&'static Row>>> = LazyLock::new(|| {
    let mut rows: HashMap<_, Vec<_>> = HashMap::new();
    for row in ROWS {
        for action in row.actions {
            rows.entry(*action).or_default().push(row);
        }
    }
    rows
});

/// Classifies the event's action.
pub fn of(event: &AuditEvent<'_>) -> Classification {
    classify(
        event.service_name.as_ref().map_or("", Text::escaped),
        event.action_name.as_ref().map_or("", Text::escaped),
    )
}

/// Classifies an action by its names; what nobody has heard of is an API call of unknown purpose.
pub fn classify(service: &str, action: &str) -> Classification {
    let rows = ROWS_OF_ACTION.get(action).map(Vec::as_slice).unwrap_or_default();
    if let Some(row) = rows.iter().find(|row| row.service == ANY || row.service == service) {
        return row.classification;
    }
    if action.starts_with("change") && (action.ends_with("Acl") || action.ends_with("Acls")) {
        return ACCESS_LIST_CHANGED;
    }
    let categories = SUBJECTS
        .iter()
        .find(|(_, services)| services.contains(&service))
        .map_or(["api"].as_slice(), |(categories, _)| *categories);
    let (types, activity) = words(action)
        .find_map(|word| {
            VERBS.iter().find(|(verbs, ..)| verbs.iter().any(|verb| word.eq_ignore_ascii_case(verb)))
        })
        .map_or((["info"].as_slice(), 99), |(_, types, activity)| (*types, *activity));
    Classification { class: Other, categories, types, ocsf: ApiActivity, activity }
}

/// The words of a name in camel case.
fn words(name: &str) -> impl Iterator<Item = &str> {
    let mut rest = name;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .char_indices()
            .skip(1)
            .find(|(_, c)| c.is_ascii_uppercase())
            .map_or(rest.len(), |(at, _)| at);
        let (word, tail) = rest.split_at(end);
        rest = tail;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The types ECS 8.17 expects of each category.
    const EXPECTED_TYPES: &[(&str, Names)] = &[
        (
            "api",
            &[
                "access", "admin", "allowed", "change", "creation", "deletion", "denied", "end", "info",
                "start", "user",
            ],
        ),
        ("authentication", &["start", "end", "info"]),
        ("configuration", &["access", "change", "creation", "deletion", "info"]),
        ("database", &["access", "change", "info", "error"]),
        ("file", &["access", "change", "creation", "deletion", "info"]),
        ("iam", &["admin", "change", "creation", "deletion", "group", "info", "user"]),
        ("network", &["access", "allowed", "connection", "denied", "end", "info", "protocol", "start"]),
        ("process", &["access", "change", "end", "info", "start"]),
        ("session", &["start", "end", "info"]),
    ];

    fn assert_ecs_expects(classification: &Classification, action: &str) {
        let expected: HashSet<_> = classification
            .categories
            .iter()
            .flat_map(|category| EXPECTED_TYPES.iter().find(|(name, _)| name == category).expect(category).1)
            .collect();
        for name in classification.types {
            assert!(expected.contains(name), "{action}: {name} of {:?}", classification.categories);
        }
    }

    #[test]
    fn every_classification_is_one_that_ecs_expects() {
        for row in ROWS {
            assert_ecs_expects(&row.classification, row.actions[0]);
        }
        assert_ecs_expects(&ACCESS_LIST_CHANGED, "changeClusterAcl");
        for (_, services) in SUBJECTS {
            for (verbs, ..) in VERBS {
                let classification = classify(services[0], verbs[0]);
                assert_ecs_expects(&classification, verbs[0]);
            }
        }
    }

    #[test]
    fn no_row_hides_a_later_one() {
        let mut seen = HashSet::new();
        for row in ROWS {
            for action in row.actions {
                assert!(
                    !seen.contains(&(ANY, *action)),
                    "{action} is claimed by an earlier row for any service"
                );
                assert!(seen.insert((row.service, *action)), "{action} stands twice");
            }
        }
        let verbs: Vec<_> = VERBS.iter().flat_map(|(verbs, ..)| *verbs).collect();
        assert_eq!(verbs.iter().collect::<HashSet<_>>().len(), verbs.len());
    }

    #[test]
    fn security_relevant_actions_have_their_class() {
        for (service, action, class, ocsf, activity) in [
            ("accounts", "tokenLogin", Login, Authentication, 1),
            ("ssh", "login", Login, Authentication, 1),
            ("accounts", "IpAccessDenied", Login, Authentication, 1),
            ("accounts", "logout", Logout, Authentication, 2),
            ("accounts", "add", Account, AccountChange, 1),
            ("accounts", "delete", Account, AccountChange, 6),
            ("accounts", "mfaDeleteKey", Credentials, AccountChange, 11),
            ("accounts", "setAdmin", AdminGrant, UserAccess, 1),
            ("accounts", "removeAdmin", AdminGrant, UserAccess, 2),
            ("clusters", "changeClusterAcl", AdminGrant, UserAccess, 1),
            ("deltaPipelines", "changePipelineAcls", AdminGrant, UserAccess, 1),
            ("unityCatalog", "updatePermissions", AdminGrant, ApiActivity, 3),
            ("accounts", "addPrincipalToGroup", Group, GroupManagement, 3),
            ("accounts", "removeGroup", Group, GroupManagement, 5),
            ("workspace", "workspaceConfEdit", Configuration, ApiActivity, 3),
            ("ssoConfigBackend", "update", Configuration, ApiActivity, 3),
            ("secrets", "getSecret", Credentials, ApiActivity, 2),
            ("notebook", "downloadPreviewResults", DataOut, ApiActivity, 2),
            ("databrickssql", "commandSubmit", CodeRun, ApiActivity, 99),
        ] {
            let found = classify(service, action);
            assert_eq!(
                (found.class, found.ocsf, found.activity),
                (class, ocsf, activity),
                "{service} {action}"
            );
        }
    }

    #[test]
    fn a_row_for_one_service_says_nothing_of_another() {
        assert_eq!(classify("jobs", "delete").ocsf, ApiActivity);
        assert_eq!(classify("clusters", "create").class, Other);
    }

    #[test]
    fn an_unlisted_action_is_classified_by_its_words_and_its_service() {
        for (service, action, category, kind, activity) in [
            ("unityCatalog", "getTable", "database", "access", 2),
            ("jobs", "create", "configuration", "creation", 1),
            ("clusters", "permanentDelete", "configuration", "deletion", 4),
            ("filesystem", "filesPut", "file", "creation", 1),
            ("deltaPipelines", "startUpdate", "configuration", "info", 99),
            ("dataMonitoring", "UpdateMonitor", "api", "change", 3),
            ("jobs", "settle", "configuration", "info", 99),
            ("", "", "api", "info", 99),
            ("groups", "überGet", "iam", "access", 2),
        ] {
            let found = classify(service, action);
            assert_eq!(
                (found.categories[0], found.types[0], found.activity),
                (category, kind, activity),
                "{action}"
            );
        }
    }
}
