//! The decoder of a pipeline, which takes secrets out unless it is told not to; and the key of the marks.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::AppError;
use crate::config::Config;
use crate::decode::Decoder;
use crate::decode::audit::AuditDecoder;
use crate::decode::redacting::RedactingDecoder;
use crate::private;

/// The random key's file, below the state directory.
const FILE: &str = "redaction.key";

/// Which key the marks have where the configuration names none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key<'a> {
    /// The one below this state directory, which is made if it is not there.
    Kept(&'a Path),
    /// The same one if it is there, else this: nothing is made.
    KeptOr(&'a Path, &'a [u8]),
}

/// The decoder of a pipeline to this output.
pub(crate) fn decoder(
    config: &Config,
    pipeline: &str,
    output: &str,
    key: Key<'_>,
) -> Result<Box<dyn Decoder>, AppError> {
    let decoder = Box::new(AuditDecoder { gaps: config.gaps(pipeline) });
    let wanted = config.outputs.get(output).is_none_or(|output| output.common.redact);
    if !wanted || !config.redaction.enabled {
        return Ok(decoder);
    }
    let unread = |state_dir: &Path, source| AppError::RedactionKey { path: state_dir.join(FILE), source };
    let key = match (&config.redaction.key, key) {
        (Some(key), _) => {
            key.reveal().map_err(|error| config.error("redaction.key", &error.to_string()))?.into_bytes()
        }
        (None, Key::Kept(state_dir)) => kept(state_dir).map_err(|source| unread(state_dir, source))?,
        (None, Key::KeptOr(state_dir, other)) => {
            let found = existing(&state_dir.join(FILE)).map_err(|source| unread(state_dir, source))?;
            found.unwrap_or_else(|| other.to_vec())
        }
    };
    let redactor =
        config.redaction.redactor(&key).map_err(|message| config.error("redaction.patterns", &message))?;
    Ok(Box::new(RedactingDecoder { decoder, redactor }))
}

/// The key in a file, if there is one.
fn existing(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(key) if !key.is_empty() => Ok(Some(key)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(None),
    }
}

/// The key that was made at the first start.
fn kept(state_dir: &Path) -> io::Result<Vec<u8>> {
    let path = state_dir.join(FILE);
    if let Some(key) = existing(&path)? {
        return Ok(key);
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    // Whole or not at all: half a key would give other marks than the one that follows it.
    let new = state_dir.join(format!("{FILE}.new"));
    let mut file = private::file(&new, OpenOptions::new().write(true))?;
    file.set_len(0)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    Ok(key.to_vec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_nobody_elses_to_read() {
        let directory = tempfile::tempdir().unwrap();
        let key = kept(directory.path()).unwrap();
        assert_eq!((key.len(), &key), (32, &kept(directory.path()).unwrap()));
        let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(key, kept(other.path()).unwrap());
    }
}
