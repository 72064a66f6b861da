//! The table of services and actions.

use super::Answer::{self, NewId, Nothing};
use super::Param::{
    self, Fixed, Id, Metastore, NotebookPath, Number, OneOf, Python, Seconds, Sha256, Sql, TableName, User,
    Uuid, VolumePath, WorkspaceId,
};
use super::{Action, Level, Service, Table};

const fn action(name: &'static str, weight: u32, params: &'static [(&'static str, Param)]) -> Action {
    Action { name, weight, params, answer: Answer::Status }
}

const fn answering(
    name: &'static str,
    weight: u32,
    params: &'static [(&'static str, Param)],
    answer: Answer,
) -> Action {
    Action { name, weight, params, answer }
}

const fn table(name: &'static str) -> Option<Table> {
    Some(Table { name, dynamic: false })
}

/// What a cluster definition looks like inside a parameter: JSON in a string, so with its quotes escaped.
const NEW_CLUSTER: &str = concat!(
    r#"{\"spark_version\":\"15.4.x-scala2.12\",\"node_type_id\":\"i3.xlarge\",\"num_workers\":8,"#,
    r#"\"data_security_mode\":\"SINGLE_USER\",\"enable_elastic_disk\":true,"#,
    r#"\"aws_attributes\":{\"zone_id\":\"auto\",\"first_on_demand\":1,\"availability\":\"SPOT_WITH_FALLBACK\"},"#,
    r#"\"spark_conf\":{\"spark.databricks.delta.preview.enabled\":\"true\"},"#,
    r#"\"custom_tags\":{\"team\":\"data-platform\",\"cost_center\":\"4711\"}}"#
);
const JOB_ACL: &str = r#"[{\"user_name\":\"dana@example.com\",\"permission_level\":\"IS_OWNER\"}]"#;
const SCHEDULE: &str = r#"{\"quartz_cron_expression\":\"0 30 2 * * ?\",\"timezone_id\":\"Europe/Berlin\",\"pause_status\":\"UNPAUSED\"}"#;
const TASKS: &str = concat!(
    r#"[{\"task_key\":\"ingest\",\"notebook_task\":{\"notebook_path\":\"/Repos/prod/etl/ingest\",\"source\":\"WORKSPACE\"}},"#,
    r#"{\"task_key\":\"publish\",\"depends_on\":[{\"task_key\":\"ingest\"}]}]"#
);
const GRANTS: &str =
    r#"[{\"principal\":\"data-eng-group\",\"add\":[\"USE_SCHEMA\",\"SELECT\"],\"remove\":[\"MODIFY\"]}]"#;
const AUTHENTICATION: &[&str] =
    &["SSO", "OAUTH_U2M", "OAUTH_M2M", "BROWSER_COOKIE", "API_INT_PAT_TOKEN", "PASSWORD"];
const WAREHOUSES: &[&str] = &["4f2ab917c0de55e1", "91c0de554f2ab917", "0b7c5f1d8a524c1e"];
const CLUSTERS: &[&str] = &["0105-101010-abcd1234", "1121-083015-night012", "0614-170755-adhoc987"];
const SCOPES: &[&str] = &["kv-prod", "kv-staging", "team-finance", "ml-serving"];
const TERMINAL_STATES: &[&str] = &["Succeeded", "Failed", "Cancelled", "Timedout"];

/// Every service the generator knows.
pub(in crate::generate) const SERVICES: &[Service] = &[
    Service {
        name: "accounts",
        category: Some("accounts"),
        table: table("DatabricksAccounts"),
        level: Level::Both,
        actions: &[
            action(
                "tokenLogin",
                150,
                &[("user", User), ("tokenId", Sha256), ("authenticationMethod", Fixed("API_INT_PAT_TOKEN"))],
            ),
            action("login", 25, &[("user", User), ("authenticationMethod", OneOf(AUTHENTICATION))]),
            action(
                "oidcTokenAuthorization",
                40,
                &[("user", User), ("authentication_method", OneOf(AUTHENTICATION))],
            ),
            action("logout", 8, &[("user", User)]),
            action("IpAccessDenied", 3, &[("path", Fixed("/api/2.1/jobs/list")), ("userName", User)]),
            action(
                "generateDbToken",
                4,
                &[
                    ("userId", Id),
                    ("tokenHash", Sha256),
                    ("tokenCreatedBy", User),
                    ("tokenExpirationTime", Id),
                ],
            ),
            action(
                "setAdmin",
                1,
                &[("endpoint", Fixed("adminConsole")), ("targetUserName", User), ("targetUserId", Id)],
            ),
        ],
    },
    Service {
        name: "unityCatalog",
        category: Some("unityCatalog"),
        table: table("DatabricksUnityCatalog"),
        level: Level::Account,
        actions: &[
            action(
                "getTable",
                200,
                &[
                    ("full_name_arg", TableName),
                    ("include_delta_metadata", OneOf(&["true", "false"])),
                    ("workspace_id", WorkspaceId),
                    ("metastore_id", Metastore),
                ],
            ),
            action(
                "generateTemporaryTableCredential",
                120,
                &[
                    ("table_full_name", TableName),
                    ("table_id", Uuid),
                    ("operation", OneOf(&["READ", "READ_WRITE"])),
                    ("is_permissions_enforcing_client", OneOf(&["true", "false"])),
                    ("table_url", Fixed("s3://acme-lakehouse/__unitystorage/catalogs/main/tables/orders")),
                    ("credential_type", Fixed("StsToken")),
                    ("credential_kind", Fixed("CREDENTIAL_KIND_ACCESS")),
                    ("workspace_id", WorkspaceId),
                    ("metastore_id", Metastore),
                ],
            ),
            action(
                "updatePermissions",
                15,
                &[
                    ("securable_type", OneOf(&["TABLE", "SCHEMA", "CATALOG", "VOLUME"])),
                    ("securable_full_name", TableName),
                    ("changes", Fixed(GRANTS)),
                    ("workspace_id", WorkspaceId),
                    ("metastore_id", Metastore),
                ],
            ),
            action(
                "createTable",
                25,
                &[
                    ("name", TableName),
                    ("data_source_format", OneOf(&["DELTA", "ICEBERG", "PARQUET"])),
                    ("table_type", OneOf(&["MANAGED", "EXTERNAL", "VIEW"])),
                    ("view_definition", Sql(900)),
                    ("workspace_id", WorkspaceId),
                    ("metastore_id", Metastore),
                ],
            ),
            action(
                "deleteTable",
                5,
                &[("full_name_arg", TableName), ("workspace_id", WorkspaceId), ("metastore_id", Metastore)],
            ),
        ],
    },
    Service {
        name: "accountsManager",
        category: None,
        table: None,
        level: Level::Account,
        actions: &[action(
            "createNetworkConnectivityConfig",
            3,
            &[
                (
                    "network_connectivity_config",
                    Fixed(r#"{\"name\":\"ncc-prod\",\"region\":\"eu-central-1\"}"#),
                ),
                ("account_id", Uuid),
            ],
        )],
    },
    Service {
        name: "notebook",
        category: Some("notebook"),
        table: table("DatabricksNotebook"),
        level: Level::Workspace,
        actions: &[
            action(
                "runCommand",
                170,
                &[
                    ("notebookId", Id),
                    ("executionTime", Seconds),
                    ("status", OneOf(&["finished", "finished", "finished", "failed", "cancelled"])),
                    ("commandId", Id),
                    ("commandText", Python(950)),
                    ("commandLanguage", Fixed("python")),
                ],
            ),
            action(
                "attachNotebook",
                15,
                &[("path", NotebookPath), ("clusterId", OneOf(CLUSTERS)), ("notebookId", Id)],
            ),
            action("createNotebook", 8, &[("notebookId", Id), ("path", NotebookPath)]),
            action("downloadPreviewResults", 4, &[("notebookId", Id), ("notebookFullPath", NotebookPath)]),
        ],
    },
    Service {
        name: "databrickssql",
        category: Some("databrickssql"),
        // Data export accepts a rule for this table and then exports nothing.
        table: None,
        level: Level::Workspace,
        actions: &[
            answering(
                "commandSubmit",
                130,
                &[
                    ("warehouseId", OneOf(WAREHOUSES)),
                    ("commandId", Uuid),
                    ("validation", Fixed("false")),
                    ("commandText", Sql(1050)),
                ],
                Nothing,
            ),
            action("commandFinish", 110, &[("warehouseId", OneOf(WAREHOUSES)), ("commandId", Uuid)]),
            action("executeAdhocQuery", 30, &[("dataSourceId", Uuid)]),
            action(
                "downloadQueryResult",
                6,
                &[("fileType", OneOf(&["csv", "xlsx"])), ("queryId", Uuid), ("queryResultId", Uuid)],
            ),
            action("startWarehouse", 6, &[("id", OneOf(WAREHOUSES))]),
        ],
    },
    Service {
        name: "jobs",
        category: Some("jobs"),
        table: table("DatabricksJobs"),
        level: Level::Workspace,
        actions: &[
            answering(
                "create",
                45,
                &[
                    ("name", OneOf(&["nightly-load", "Täglicher Abgleich", "売上レポート", "Untitled"])),
                    ("job_type", Fixed("NORMAL")),
                    ("new_cluster", Fixed(NEW_CLUSTER)),
                    ("schedule", Fixed(SCHEDULE)),
                    ("tasks", Fixed(TASKS)),
                    ("access_control_list", Fixed(JOB_ACL)),
                    ("timeout_seconds", Number(86_400)),
                    ("max_retries", Number(4)),
                ],
                NewId("job_id"),
            ),
            action(
                "runCommand",
                90,
                &[
                    ("jobId", Id),
                    ("runId", Id),
                    ("notebookId", Id),
                    ("executionTime", Seconds),
                    ("status", OneOf(&["finished", "finished", "finished", "failed"])),
                    ("commandId", Id),
                    ("commandText", Sql(950)),
                ],
            ),
            action(
                "runStart",
                35,
                &[
                    ("jobId", Id),
                    ("runId", Id),
                    ("multitaskParentRunId", Id),
                    ("taskKey", OneOf(&["ingest", "publish", "clean"])),
                    ("jobClusterType", OneOf(&["new", "existing", "serverless"])),
                    ("jobTriggerType", OneOf(&["cron", "manual", "retry"])),
                    ("jobTaskType", Fixed("notebook")),
                ],
            ),
            action(
                "runSucceeded",
                30,
                &[
                    ("jobId", Id),
                    ("runId", Id),
                    ("idInJob", Number(5000)),
                    ("jobTerminalState", OneOf(TERMINAL_STATES)),
                    ("jobTriggerType", OneOf(&["cron", "manual", "retry"])),
                ],
            ),
            answering(
                "runNow",
                12,
                &[("job_id", Id), ("notebook_params", Fixed(r#"{\"date\":\"2026-01-05\"}"#))],
                NewId("run_id"),
            ),
        ],
    },
    Service {
        name: "clusters",
        category: Some("clusters"),
        table: table("DatabricksClusters"),
        level: Level::Workspace,
        actions: &[
            answering(
                "create",
                14,
                &[
                    ("cluster_name", OneOf(&["adhoc", "shared-etl", "ml-großer-cluster"])),
                    ("spark_version", Fixed("15.4.x-scala2.12")),
                    ("node_type_id", Fixed("i3.xlarge")),
                    ("autoscale", Fixed(r#"{\"min_workers\":2,\"max_workers\":20}"#)),
                    ("autotermination_minutes", Number(240)),
                    ("cluster_creator", OneOf(&["UI", "JOB_LAUNCHER"])),
                    ("organization_id", WorkspaceId),
                    ("user_id", Id),
                ],
                NewId("cluster_number"),
            ),
            action("delete", 14, &[("cluster_id", OneOf(CLUSTERS))]),
            action(
                "changeClusterAcl",
                3,
                &[
                    ("shardName", Fixed("example-shard-1")),
                    ("aclPermissionSet", OneOf(&["attach", "restart", "manage"])),
                    ("targetUserId", Id),
                    ("resourceId", OneOf(CLUSTERS)),
                ],
            ),
        ],
    },
    Service {
        name: "filesystem",
        category: Some("Filesystem"),
        table: Some(Table { name: "DatabricksFilesystem", dynamic: true }),
        level: Level::Workspace,
        actions: &[
            action("filesGet", 30, &[("path", VolumePath), ("transferredSize", Number(90_000_000))]),
            action("filesPut", 20, &[("path", VolumePath), ("receivedSize", Number(90_000_000))]),
            action("filesDelete", 3, &[("path", VolumePath)]),
        ],
    },
    Service {
        name: "secrets",
        category: Some("secrets"),
        table: table("DatabricksSecrets"),
        level: Level::Workspace,
        actions: &[
            action(
                "getSecret",
                30,
                &[("scope", OneOf(SCOPES)), ("key", OneOf(&["jdbc-password", "api-key", "sas-token"]))],
            ),
            action(
                "putAcl",
                2,
                &[
                    ("scope", OneOf(SCOPES)),
                    ("principal", User),
                    ("permission", OneOf(&["READ", "WRITE", "MANAGE"])),
                ],
            ),
        ],
    },
    Service {
        name: "workspace",
        category: Some("workspace"),
        table: table("DatabricksWorkspace"),
        level: Level::Workspace,
        actions: &[
            action(
                "workspaceExport",
                8,
                &[
                    ("workspaceExportDirectDownload", OneOf(&["true", "false"])),
                    ("workspaceExportFormat", OneOf(&["SOURCE", "DBC", "HTML"])),
                    ("notebookFullPath", NotebookPath),
                ],
            ),
            action(
                "workspaceConfEdit",
                1,
                &[
                    ("workspaceConfKeys", Fixed("enableVerboseAuditLogs")),
                    ("workspaceConfValues", OneOf(&["true", "false"])),
                ],
            ),
        ],
    },
];
