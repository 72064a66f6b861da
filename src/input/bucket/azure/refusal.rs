//! Refusals of a storage account in the words of its users: which right is missing, and which key to change.

use thiserror::Error;

use super::credentials::{Credentials, Kind};
use crate::azure_token::TokenError;
use crate::time::Millis;

/// A refusal, inside of an `object_store::Error`.
#[derive(Debug, Error)]
#[error("{reason}; {remedy}")]
pub(in crate::input::bucket) struct Refusal {
    /// What happened.
    pub(in crate::input::bucket) reason: String,
    /// What to do, naming the configuration key.
    pub(in crate::input::bucket) remedy: String,
}

/// The refusal inside of an error.
pub(in crate::input::bucket) fn refusal(error: &object_store::Error) -> Option<&Refusal> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Puts an answer's refusal in plain words; other errors stay as they are. `container` is empty for the account itself.
pub(super) fn explain(
    error: object_store::Error,
    container: &str,
    credentials: &Credentials,
    now: Millis,
) -> object_store::Error {
    match in_words(&error, container, credentials, now) {
        Some(refusal) => {
            object_store::Error::PermissionDenied { path: container.to_owned(), source: Box::new(refusal) }
        }
        None => error,
    }
}

fn in_words(
    error: &object_store::Error,
    container: &str,
    credentials: &Credentials,
    now: Millis,
) -> Option<Refusal> {
    if let Some(TokenError::Refused { place, reason, remedy }) =
        std::error::Error::source(error).and_then(|source| source.downcast_ref())
    {
        return Some(Refusal {
            reason: format!("no access token from {place}: {reason}"),
            remedy: remedy.clone(),
        });
    }
    let text = error.to_string();
    // A listing that is refused is no `PermissionDenied` of the store's: only the status in its text tells.
    let denied = ["401 Unauthorized", "403 Forbidden"].iter().any(|status| text.contains(status))
        || matches!(
            error,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }
        );
    let says = |reason: String, remedy: String| Some(Refusal { reason, remedy });
    let key = credentials.key();
    if let Some(end) = credentials.sas_end().filter(|_| denied)
        && Millis::parse(&end).is_some_and(|end| end <= now)
    {
        return says(format!("the SAS expired at {end}"), format!("put a new one in {key}"));
    }
    let Some(code) = between(&text, "<Code>", "</Code>") else {
        // The answer to a HEAD has no body; a secret that cannot be read has no answer.
        let reason = std::error::Error::source(error).map_or_else(|| text.clone(), ToString::to_string);
        return denied.then(|| Refusal { reason, remedy: rights(credentials) });
    };
    let message = between(&text, "<Message>", "</Message>").unwrap_or(code);
    let message = message.lines().next().unwrap_or(code).trim().trim_end_matches('.').to_owned();
    let detail = between(&text, "<AuthenticationErrorDetail>", "</AuthenticationErrorDetail>").map(str::trim);
    match code {
        "ContainerNotFound" | "ContainerBeingDeleted" => says(
            format!("the container {container} does not exist"),
            "check `containers` and `url`; Azure makes a container with the first record of its category"
                .to_owned(),
        ),
        "AuthorizationPermissionMismatch" => {
            says("the credentials lack a right".to_owned(), rights(credentials))
        }
        "AuthorizationResourceTypeMismatch" | "AuthorizationServiceMismatch" => says(
            "the SAS does not cover this".to_owned(),
            format!(
                "make an account SAS in {key} for the service Blob and the resource types Service, Container and \
                 Object, or name the `containers`"
            ),
        ),
        // Azure's word for a network that is closed to us; others use it for a missing right.
        "AuthorizationFailure" => says(
            message,
            format!("{}; and let this machine through the storage account's firewall", rights(credentials)),
        ),
        "AuthenticationFailed" if detail.is_some_and(|detail| detail.contains("time frame")) => says(
            format!("the SAS is not valid now: {}", detail.unwrap_or_default()),
            format!("put a new one in {key}"),
        ),
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => says(
            detail.map_or(message, str::to_owned),
            match credentials {
                Credentials::Identity(_) => "check azure.tenant_id and azure.authority_host".to_owned(),
                _ => format!(
                    "check {key}, that it is of this account and not expired, and the machine's clock"
                ),
            },
        ),
        "KeyBasedAuthenticationNotPermitted" => says(
            "the storage account takes no access keys".to_owned(),
            format!("remove {key} and use an identity (azure.client_id, or a managed one)"),
        ),
        "AccountIsDisabled" => says(message, "enable the storage account".to_owned()),
        _ => denied.then(|| Refusal { reason: format!("{code}: {message}"), remedy: rights(credentials) }),
    }
}

/// Who needs which right.
fn rights(credentials: &Credentials) -> String {
    let key = credentials.key();
    match credentials {
        Credentials::Identity(_) => {
            "give the identity the role Storage Blob Data Reader on the storage account".to_owned()
        }
        Credentials::Secret { kind: Kind::Sas, .. } => {
            format!("give the SAS in {key} the permissions Read and List")
        }
        Credentials::Secret { .. } => format!("check {key}"),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}
