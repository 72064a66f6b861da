//! What an answer of a store that is no success means: pass the time, or tell a human what to change.

use object_store::{Error, path};

use super::azure;
use crate::http::innermost;
use crate::input::InputError;

/// True for an object in an archive, of S3 or of Azure, where it lies until it is restored.
pub(super) fn is_archived(error: &Error) -> bool {
    let text = error.to_string();
    ["<Code>InvalidObjectState</Code>", "<Code>BlobArchived</Code>"].iter().any(|code| text.contains(code))
}

/// Tells what passes from what a human must put right.
pub(super) fn refusal(action: String, error: &Error) -> InputError {
    if is_archived(error) {
        // Nothing is wrong with the source: others can be read, so that this is nothing to hold for.
        let advice = "it lies in an archive: restore it, or leave its date out by `start_date`";
        return InputError::Transient { action, source: format!("{error}; {advice}").into() };
    }
    if let Some(azure::Refusal { reason, remedy }) = azure::refusal(error) {
        return InputError::Refused { action, source: reason.as_str().into(), remedy: remedy.clone() };
    }
    let text = told(error);
    // Listing a bucket that is not there is no `NotFound` of the store's: only the answer's code tells.
    let no_bucket =
        ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"].iter().any(|code| text.contains(code));
    let code = |code: &str| text.contains(&format!("<Code>{code}</Code>"));
    // Has the status of a missing right and is none.
    let skewed = code("RequestTimeTooSkewed");
    // A listing that is refused is no `PermissionDenied` either, and an old token is a bad request to S3.
    let denied = ["status code: 401 ", "status code: 403 "].iter().any(|status| text.contains(status))
        || ["ExpiredToken", "InvalidToken"].into_iter().any(code)
        || matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. });
    let source = text.into();
    let remedy = match error {
        _ if no_bucket => "check the bucket's name in `url`",
        _ if skewed => "set this machine's clock",
        _ if denied => {
            "check the credentials and that they may list and read the bucket and decrypt with its key"
        }
        Error::NotFound { .. } => "check the bucket's name in `url`",
        // The library gives up the whole listing at such a key.
        Error::InvalidPath { source: path::Error::EmptySegment { .. } } => {
            "move the object with // in its key elsewhere, or have `url` name a folder that does not hold it"
        }
        _ => return InputError::Transient { action, source },
    };
    InputError::Refused { action, source, remedy: remedy.to_owned() }
}

/// The error with its innermost cause: an answer that breaks off is one that "cannot be decoded" to the library.
fn told(error: &Error) -> String {
    let (text, cause) = (error.to_string(), innermost(error));
    if text.contains(&cause) { text } else { format!("{text}: {cause}") }
}

#[cfg(test)]
mod tests {
    use std::io;

    use object_store::client::{HttpError, HttpErrorKind};
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("error decoding response body")]
    struct Undecodable(#[source] io::Error);

    #[test]
    fn why_an_answer_broke_off_is_told_once() {
        let told = |cause: HttpError| {
            let error = Error::Generic { store: "S3", source: Box::new(cause) };
            refusal("cannot read a".to_owned(), &error).to_string()
        };
        let cut = Undecodable(io::Error::other("end of file before message length reached"));
        assert_eq!(
            told(HttpError::new(HttpErrorKind::Decode, cut)),
            "cannot read a: Generic S3 error: HTTP error: error decoding response body: end of file before message length \
             reached"
        );
        assert_eq!(
            told(HttpError::new(HttpErrorKind::Connect, io::Error::other("connection refused"))),
            "cannot read a: Generic S3 error: HTTP error: connection refused"
        );
    }
}
