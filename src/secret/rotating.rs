//! Secrets that change while they are used.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Secret, SecretError};

/// A secret in the middle of its rotation: where the collector does not know the new one yet, the one before it is used
/// until that is refused in turn.
///
/// | the collector refuses | and took before | next is used |
/// |---|---|---|
/// | the new one | another | that one |
/// | the one before | | the new one |
/// | the new one | none, or this same one | the new one: a human has to act |
pub struct Rotating {
    secret: Secret,
    texts: Mutex<Texts>,
}

#[derive(Default)]
struct Texts {
    accepted: Option<String>,
    refused: Option<String>,
}

impl Rotating {
    /// Of this secret.
    pub fn new(secret: Secret) -> Self {
        Self { secret, texts: Mutex::default() }
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text to use now.
    ///
    /// # Errors
    /// [`SecretError`] if it is not where the configuration says.
    pub fn reveal(&self) -> Result<String, SecretError> {
        let now = self.secret.reveal()?;
        let texts = self.texts();
        match &texts.accepted {
            Some(before) if texts.refused.as_ref() == Some(&now) => Ok(before.clone()),
            _ => Ok(now),
        }
    }

    /// The collector took this text.
    pub fn accepted(&self, text: &str) {
        let mut texts = self.texts();
        if texts.accepted.as_deref() != Some(text) {
            texts.accepted = Some(text.to_owned());
        }
        texts.refused.take_if(|refused| refused == text);
    }

    /// The collector refused this text. True if there is another one to try.
    pub fn refused(&self, text: &str) -> bool {
        let Ok(now) = self.secret.reveal() else { return false };
        let mut texts = self.texts();
        if text != now {
            texts.accepted.take_if(|accepted| accepted == text);
            return true;
        }
        let another = texts.accepted.as_ref().is_some_and(|before| *before != now);
        texts.refused = Some(now);
        another
    }
}

/// The access token that a collector took last. Where it refuses the same one later, that ended early or was revoked: a new
/// one may do, and no human is needed yet.
#[derive(Default)]
pub struct LastTaken(Mutex<Option<String>>);

impl LastTaken {
    /// The collector took this token.
    pub fn accepted(&self, token: &str) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.as_deref() != Some(token) {
            *taken = Some(token.to_owned());
        }
    }

    /// The collector refused this token. True, once, for the one that it took last.
    pub fn refused(&self, token: &str) -> bool {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.take_if(|taken| taken == token).is_some()
    }
}

impl fmt::Debug for LastTaken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LastTaken")
    }
}

impl fmt::Debug for Rotating {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secret.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_not_known_yet_gives_way_to_the_one_before_it_until_that_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "old").unwrap();
        let secret = Rotating::new(Secret::file(&path));
        secret.accepted("old");
        std::fs::write(&path, "new").unwrap();
        assert_eq!(secret.reveal().unwrap(), "new");
        assert!(secret.refused("new"));
        assert_eq!(secret.reveal().unwrap(), "old");
        secret.accepted("old");
        assert_eq!(secret.reveal().unwrap(), "old");
        assert!(secret.refused("old"), "the new one may be known by now");
        assert_eq!(secret.reveal().unwrap(), "new");
        assert!(!secret.refused("new"), "neither is taken");
        secret.accepted("new");
        assert!(!secret.refused("new"), "it was revoked");
        std::fs::write(&path, "newer").unwrap();
        assert_eq!(secret.reveal().unwrap(), "newer");
        assert_eq!(format!("{secret:?}"), format!("Secret(file {})", path.display()));
    }
}
