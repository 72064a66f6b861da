//! What happens in the generated workspaces: a selection of the documented services and actions, with their weights.

use fastrand::Rng;

/// A service of the audit log and its names on the routes.
#[derive(Debug)]
pub(super) struct Service {
    /// `serviceName` of the record.
    pub(super) name: &'static str,
    /// Azure's diagnostic category; `None` where Azure has none.
    pub(super) category: Option<&'static str>,
    /// The Log Analytics table; `None` where data export carries nothing.
    pub(super) table: Option<Table>,
    pub(super) level: Level,
    pub(super) actions: &'static [Action],
}

/// A Log Analytics table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Tables of 2024 and later hold identity, parameters and response as objects, and spell `SourceIpAddress`.
    pub(super) dynamic: bool,
}

/// Which records of a delivery bucket a service writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Workspace,
    Account,
    Both,
}

/// One action and how its record is filled.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) name: &'static str,
    /// How often it happens, relative to all others.
    pub(super) weight: u32,
    pub(super) params: &'static [(&'static str, Param)],
    pub(super) answer: Answer,
}

/// The content of one request parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Param {
    /// Always this text, written with JSON's escapes.
    Fixed(&'static str),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A whole number below the bound, as text.
    Number(u64),
    /// Seconds with three decimals.
    Seconds,
    /// An id of 16 to 19 digits: above 2^53.
    Id,
    Uuid,
    Sha256,
    User,
    WorkspaceId,
    Metastore,
    /// `catalog.schema.table`.
    TableName,
    NotebookPath,
    VolumePath,
    /// A SQL statement of about this many bytes.
    Sql(usize),
    /// Python code of about this many bytes.
    Python(usize),
}

/// What the response holds when all goes well.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// A status and nothing else.
    Status,
    /// A JSON object with one number, as text: the result of a call that creates something.
    NewId(&'static str),
    /// No response at all.
    Nothing,
}

/// The actions that may appear in one kind of object, by weight.
#[derive(Debug)]
pub(super) struct Pool {
    /// Each with the sum of the weights up to and including its own.
    entries: Vec<(u32, &'static Service, &'static Action)>,
    total: u32,
}

impl Pool {
    /// All actions of these services.
    pub(super) fn of(services: impl Iterator<Item = &'static Service>) -> Self {
        let mut entries = Vec::new();
        let mut total = 0;
        for service in services {
            for action in service.actions {
                total += action.weight;
                entries.push((total, service, action));
            }
        }
        Self { entries, total }
    }

    pub(super) fn pick(&self, rng: &mut Rng) -> Option<(&'static Service, &'static Action)> {
        let drawn = rng.u32(..self.total.max(1));
        let at = self.entries.partition_point(|(sum, _, _)| *sum <= drawn);
        self.entries.get(at).map(|(_, service, action)| (*service, *action))
    }
}

const fn action(
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
pub(super) const SERVICES: &[Service] = &[
    Service {
        name: "accounts",
        category: Some("accounts"),
        table: table("DatabricksAccounts"),
        level: Level::Both,
        actions: &[
            action(
                "tokenLogin",
                150,
                &[
                    ("user", Param::User),
                    ("tokenId", Param::Sha256),
                    ("authenticationMethod", Param::Fixed("API_INT_PAT_TOKEN")),
                ],
                Answer::Status,
            ),
            action(
                "login",
                25,
                &[("user", Param::User), ("authenticationMethod", Param::OneOf(AUTHENTICATION))],
                Answer::Status,
            ),
            action(
                "oidcTokenAuthorization",
                40,
                &[("user", Param::User), ("authentication_method", Param::OneOf(AUTHENTICATION))],
                Answer::Status,
            ),
            action("logout", 8, &[("user", Param::User)], Answer::Status),
            action(
                "IpAccessDenied",
                3,
                &[("path", Param::Fixed("/api/2.1/jobs/list")), ("userName", Param::User)],
                Answer::Status,
            ),
            action(
                "generateDbToken",
                4,
                &[
                    ("userId", Param::Id),
                    ("tokenHash", Param::Sha256),
                    ("tokenCreatedBy", Param::User),
                    ("tokenExpirationTime", Param::Id),
                ],
                Answer::Status,
            ),
            action(
                "setAdmin",
                1,
                &[
                    ("endpoint", Param::Fixed("adminConsole")),
                    ("targetUserName", Param::User),
                    ("targetUserId", Param::Id),
                ],
                Answer::Status,
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
                    ("full_name_arg", Param::TableName),
                    ("include_delta_metadata", Param::OneOf(&["true", "false"])),
                    ("workspace_id", Param::WorkspaceId),
                    ("metastore_id", Param::Metastore),
                ],
                Answer::Status,
            ),
            action(
                "generateTemporaryTableCredential",
                120,
                &[
                    ("table_full_name", Param::TableName),
                    ("table_id", Param::Uuid),
                    ("operation", Param::OneOf(&["READ", "READ_WRITE"])),
                    ("is_permissions_enforcing_client", Param::OneOf(&["true", "false"])),
                    (
                        "table_url",
                        Param::Fixed("s3://acme-lakehouse/__unitystorage/catalogs/main/tables/orders"),
                    ),
                    ("credential_type", Param::Fixed("StsToken")),
                    ("credential_kind", Param::Fixed("CREDENTIAL_KIND_ACCESS")),
                    ("workspace_id", Param::WorkspaceId),
                    ("metastore_id", Param::Metastore),
                ],
                Answer::Status,
            ),
            action(
                "updatePermissions",
                15,
                &[
                    ("securable_type", Param::OneOf(&["TABLE", "SCHEMA", "CATALOG", "VOLUME"])),
                    ("securable_full_name", Param::TableName),
                    ("changes", Param::Fixed(GRANTS)),
                    ("workspace_id", Param::WorkspaceId),
                    ("metastore_id", Param::Metastore),
                ],
                Answer::Status,
            ),
            action(
                "createTable",
                25,
                &[
                    ("name", Param::TableName),
                    ("data_source_format", Param::OneOf(&["DELTA", "ICEBERG", "PARQUET"])),
                    ("table_type", Param::OneOf(&["MANAGED", "EXTERNAL", "VIEW"])),
                    ("view_definition", Param::Sql(900)),
                    ("workspace_id", Param::WorkspaceId),
                    ("metastore_id", Param::Metastore),
                ],
                Answer::Status,
            ),
            action(
                "deleteTable",
                5,
                &[
                    ("full_name_arg", Param::TableName),
                    ("workspace_id", Param::WorkspaceId),
                    ("metastore_id", Param::Metastore),
                ],
                Answer::Status,
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
                    Param::Fixed(r#"{\"name\":\"ncc-prod\",\"region\":\"eu-central-1\"}"#),
                ),
                ("account_id", Param::Uuid),
            ],
            Answer::Status,
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
                    ("notebookId", Param::Id),
                    ("executionTime", Param::Seconds),
                    ("status", Param::OneOf(&["finished", "finished", "finished", "failed", "cancelled"])),
                    ("commandId", Param::Id),
                    ("commandText", Param::Python(950)),
                    ("commandLanguage", Param::Fixed("python")),
                ],
                Answer::Status,
            ),
            action(
                "attachNotebook",
                15,
                &[
                    ("path", Param::NotebookPath),
                    ("clusterId", Param::OneOf(CLUSTERS)),
                    ("notebookId", Param::Id),
                ],
                Answer::Status,
            ),
            action(
                "createNotebook",
                8,
                &[("notebookId", Param::Id), ("path", Param::NotebookPath)],
                Answer::Status,
            ),
            action(
                "downloadPreviewResults",
                4,
                &[("notebookId", Param::Id), ("notebookFullPath", Param::NotebookPath)],
                Answer::Status,
            ),
        ],
    },
    Service {
        name: "databrickssql",
        category: Some("databrickssql"),
        // Data export accepts a rule for this table and then exports nothing.
        table: None,
        level: Level::Workspace,
        actions: &[
            action(
                "commandSubmit",
                130,
                &[
                    ("warehouseId", Param::OneOf(WAREHOUSES)),
                    ("commandId", Param::Uuid),
                    ("validation", Param::Fixed("false")),
                    ("commandText", Param::Sql(1050)),
                ],
                Answer::Nothing,
            ),
            action(
                "commandFinish",
                110,
                &[("warehouseId", Param::OneOf(WAREHOUSES)), ("commandId", Param::Uuid)],
                Answer::Status,
            ),
            action("executeAdhocQuery", 30, &[("dataSourceId", Param::Uuid)], Answer::Status),
            action(
                "downloadQueryResult",
                6,
                &[
                    ("fileType", Param::OneOf(&["csv", "xlsx"])),
                    ("queryId", Param::Uuid),
                    ("queryResultId", Param::Uuid),
                ],
                Answer::Status,
            ),
            action("startWarehouse", 6, &[("id", Param::OneOf(WAREHOUSES))], Answer::Status),
        ],
    },
    Service {
        name: "jobs",
        category: Some("jobs"),
        table: table("DatabricksJobs"),
        level: Level::Workspace,
        actions: &[
            action(
                "create",
                45,
                &[
                    (
                        "name",
                        Param::OneOf(&["nightly-load", "Täglicher Abgleich", "売上レポート", "Untitled"]),
                    ),
                    ("job_type", Param::Fixed("NORMAL")),
                    ("new_cluster", Param::Fixed(NEW_CLUSTER)),
                    ("schedule", Param::Fixed(SCHEDULE)),
                    ("tasks", Param::Fixed(TASKS)),
                    ("access_control_list", Param::Fixed(JOB_ACL)),
                    ("timeout_seconds", Param::Number(86_400)),
                    ("max_retries", Param::Number(4)),
                ],
                Answer::NewId("job_id"),
            ),
            action(
                "runCommand",
                90,
                &[
                    ("jobId", Param::Id),
                    ("runId", Param::Id),
                    ("notebookId", Param::Id),
                    ("executionTime", Param::Seconds),
                    ("status", Param::OneOf(&["finished", "finished", "finished", "failed"])),
                    ("commandId", Param::Id),
                    ("commandText", Param::Sql(950)),
                ],
                Answer::Status,
            ),
            action(
                "runStart",
                35,
                &[
                    ("jobId", Param::Id),
                    ("runId", Param::Id),
                    ("multitaskParentRunId", Param::Id),
                    ("taskKey", Param::OneOf(&["ingest", "publish", "clean"])),
                    ("jobClusterType", Param::OneOf(&["new", "existing", "serverless"])),
                    ("jobTriggerType", Param::OneOf(&["cron", "manual", "retry"])),
                    ("jobTaskType", Param::Fixed("notebook")),
                ],
                Answer::Status,
            ),
            action(
                "runSucceeded",
                30,
                &[
                    ("jobId", Param::Id),
                    ("runId", Param::Id),
                    ("idInJob", Param::Number(5000)),
                    ("jobTerminalState", Param::OneOf(TERMINAL_STATES)),
                    ("jobTriggerType", Param::OneOf(&["cron", "manual", "retry"])),
                ],
                Answer::Status,
            ),
            action(
                "runNow",
                12,
                &[("job_id", Param::Id), ("notebook_params", Param::Fixed(r#"{\"date\":\"2026-01-05\"}"#))],
                Answer::NewId("run_id"),
            ),
        ],
    },
    Service {
        name: "clusters",
        category: Some("clusters"),
        table: table("DatabricksClusters"),
        level: Level::Workspace,
        actions: &[
            action(
                "create",
                14,
                &[
                    ("cluster_name", Param::OneOf(&["adhoc", "shared-etl", "ml-großer-cluster"])),
                    ("spark_version", Param::Fixed("15.4.x-scala2.12")),
                    ("node_type_id", Param::Fixed("i3.xlarge")),
                    ("autoscale", Param::Fixed(r#"{\"min_workers\":2,\"max_workers\":20}"#)),
                    ("autotermination_minutes", Param::Number(240)),
                    ("cluster_creator", Param::OneOf(&["UI", "JOB_LAUNCHER"])),
                    ("organization_id", Param::WorkspaceId),
                    ("user_id", Param::Id),
                ],
                Answer::NewId("cluster_number"),
            ),
            action("delete", 14, &[("cluster_id", Param::OneOf(CLUSTERS))], Answer::Status),
            action(
                "changeClusterAcl",
                3,
                &[
                    ("shardName", Param::Fixed("example-shard-1")),
                    ("aclPermissionSet", Param::OneOf(&["attach", "restart", "manage"])),
                    ("targetUserId", Param::Id),
                    ("resourceId", Param::OneOf(CLUSTERS)),
                ],
                Answer::Status,
            ),
        ],
    },
    Service {
        name: "filesystem",
        category: Some("Filesystem"),
        table: Some(Table { name: "DatabricksFilesystem", dynamic: true }),
        level: Level::Workspace,
        actions: &[
            action(
                "filesGet",
                30,
                &[("path", Param::VolumePath), ("transferredSize", Param::Number(90_000_000))],
                Answer::Status,
            ),
            action(
                "filesPut",
                20,
                &[("path", Param::VolumePath), ("receivedSize", Param::Number(90_000_000))],
                Answer::Status,
            ),
            action("filesDelete", 3, &[("path", Param::VolumePath)], Answer::Status),
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
                &[
                    ("scope", Param::OneOf(SCOPES)),
                    ("key", Param::OneOf(&["jdbc-password", "api-key", "sas-token"])),
                ],
                Answer::Status,
            ),
            action(
                "putAcl",
                2,
                &[
                    ("scope", Param::OneOf(SCOPES)),
                    ("principal", Param::User),
                    ("permission", Param::OneOf(&["READ", "WRITE", "MANAGE"])),
                ],
                Answer::Status,
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
                    ("workspaceExportDirectDownload", Param::OneOf(&["true", "false"])),
                    ("workspaceExportFormat", Param::OneOf(&["SOURCE", "DBC", "HTML"])),
                    ("notebookFullPath", Param::NotebookPath),
                ],
                Answer::Status,
            ),
            action(
                "workspaceConfEdit",
                1,
                &[
                    ("workspaceConfKeys", Param::Fixed("enableVerboseAuditLogs")),
                    ("workspaceConfValues", Param::OneOf(&["true", "false"])),
                ],
                Answer::Status,
            ),
        ],
    },
];
