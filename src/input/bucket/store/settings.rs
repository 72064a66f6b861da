//! How the stores are reached, as the configuration says it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::aws::AwsLogin;
use crate::component::BuildError;
use crate::http::HttpSettings;
use crate::secret::Secret;

/// Tables of a bucket input, one per kind of store; only the one that the URL names is used.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct StoreSettings {
    /// For `s3://`.
    pub(crate) s3: S3Settings,
    /// For `gs://`.
    pub(crate) gcs: GcsSettings,
    /// For `az://`.
    pub(crate) azure: AzureSettings,
    /// TLS and proxy of all of them.
    pub(crate) http: HttpSettings,
}

/// Amazon S3 and servers that speak its protocol. Without keys, the credentials are found as the AWS tools find them:
/// environment, profile files, SSO, web identity, container and instance metadata.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct S3Settings {
    /// Region of the bucket. Default: that of the environment, the profile or the instance.
    pub region: Option<String>,
    /// Address of an S3-compatible server, for instance `https://minio.example:9000`.
    pub endpoint: Option<String>,
    /// Puts the bucket in the path of a request, not in the host name. Default: true with an `endpoint`.
    pub path_style: Option<bool>,
    /// SQS queue that the bucket's event notifications arrive in, directly or through SNS or EventBridge:
    /// `https://sqs.eu-central-1.amazonaws.com/123456789012/audit`. A new object is then looked at within a second, and
    /// `poll_interval` may be long: listing remains for what no message told. Each process needs a queue of its own,
    /// since a message goes to one reader only. With `--once` it is left alone.
    pub sqs_queue_url: Option<String>,
    /// Profile of the AWS configuration files. Default: `AWS_PROFILE`, or `default`.
    pub profile: Option<String>,
    /// Access key, if not found the usual way.
    pub access_key_id: Option<Secret>,
    /// Secret of the access key.
    pub secret_access_key: Option<Secret>,
    /// Session token of temporary keys.
    pub session_token: Option<Secret>,
    /// Role to assume with the credentials found or given: `arn:aws:iam::123456789012:role/name`.
    pub role_arn: Option<String>,
    /// External id that the role's trust policy asks for.
    pub external_id: Option<String>,
    /// Name of the session in CloudTrail. Default: `auditferry`.
    pub role_session_name: Option<String>,
    /// Allows an `endpoint` without TLS.
    pub allow_http: bool,
    /// Reads a public bucket without credentials.
    pub anonymous: bool,
}

/// Google Cloud Storage. Without a file, the application default credentials are used: the file that
/// `GOOGLE_APPLICATION_CREDENTIALS` names, that of `gcloud auth application-default login`, else the metadata server,
/// which knows the service account of an instance and, with workload identity, of a pod in GKE. A file may hold a
/// service account's key or gcloud's user credentials; the federation with other clouds (`external_account`) is not
/// offered.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GcsSettings {
    /// Key file of a service account; read once at start.
    pub service_account_file: Option<PathBuf>,
    /// Address of another server that speaks the XML API, such as a private endpoint or an emulator:
    /// `https://storage-audit.p.googleapis.com`.
    pub endpoint: Option<String>,
    /// Allows an `endpoint` without TLS.
    pub allow_http: bool,
    /// Reads a public bucket without credentials.
    pub anonymous: bool,
}

/// Azure Blob Storage. Without a key, a token or a client secret, the credentials are found in the environment
/// (`AZURE_STORAGE_…`, `AZURE_CLIENT_…`, workload identity) or at the managed identity of the machine.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AzureSettings {
    /// Storage account. Default: that of the URL, of the connection string, or `AZURE_STORAGE_ACCOUNT_NAME`.
    pub account: Option<String>,
    /// Access key of the account.
    pub access_key: Option<Secret>,
    /// Shared access signature with the permissions Read and List; an account SAS (resource types Service, Container
    /// and Object) where all containers of an account are read.
    pub sas_token: Option<Secret>,
    /// Connection string with the account's key or a shared access signature. Account and endpoint in it are read once
    /// at start.
    pub connection_string: Option<Secret>,
    /// Application (client) id of a service principal or a user-assigned managed identity.
    pub client_id: Option<String>,
    /// Client secret of the service principal.
    pub client_secret: Option<Secret>,
    /// PEM file with the certificate of the service principal and its RSA key, in place of a secret.
    pub client_certificate_file: Option<PathBuf>,
    /// Directory (tenant) id of the service principal.
    pub tenant_id: Option<String>,
    /// Entra ID of a sovereign cloud, for instance `https://login.microsoftonline.us`. Default: `AZURE_AUTHORITY_HOST`,
    /// or the public cloud's.
    pub authority_host: Option<String>,
    /// Ask the Azure Resource Manager for the workspace ids that Azure's records leave out and `workspace_ids` does not
    /// name; takes the role Reader on the workspaces. Default: true with the layouts of Azure and an identity (no key,
    /// SAS or connection string), else false. What cannot be had is said once and stops nothing.
    #[schemars(extend("examples" = [true]))]
    pub resolve_workspace_ids: Option<bool>,
    /// The Resource Manager of a sovereign cloud, for instance `https://management.usgovcloudapi.net`. Default: the
    /// public cloud's.
    pub resource_manager_endpoint: Option<String>,
    /// Address of the blob service, for instance of a sovereign cloud or a private link.
    pub endpoint: Option<String>,
    /// Allows an `endpoint` without TLS.
    pub allow_http: bool,
}

impl S3Settings {
    /// Finds keys that do not go together.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        self.login().check()?;
        let given = self.access_key_id.is_some() || self.profile.is_some() || self.role_arn.is_some();
        if self.anonymous && given {
            let message = "cannot be used together with credentials; remove one of them";
            return Err(BuildError::new("s3.anonymous", message));
        }
        Ok(())
    }

    /// Who signs, unless the bucket is read without credentials.
    pub(crate) fn login(&self) -> AwsLogin {
        AwsLogin {
            table: "s3",
            profile: self.profile.clone(),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: self.session_token.clone(),
            role_arn: self.role_arn.clone(),
            external_id: self.external_id.clone(),
            role_session_name: self.role_session_name.clone(),
        }
    }
}

impl AzureSettings {
    /// Finds keys that do not go together.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let given = [
            ("access_key", self.access_key.is_some()),
            ("sas_token", self.sas_token.is_some()),
            ("connection_string", self.connection_string.is_some()),
            ("client_secret", self.client_secret.is_some()),
            ("client_certificate_file", self.client_certificate_file.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, given)| *given);
        if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
            let message = format!("cannot be used together with {first}; remove one of them");
            return Err(BuildError::new(&format!("azure.{second}"), message));
        }
        Ok(())
    }
}
