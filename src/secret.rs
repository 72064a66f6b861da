//! Secrets: named in the configuration, read from where they are kept, re-read when they change, never printed.

use std::borrow::Cow;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use thiserror::Error as ThisError;

mod rotating;

pub use rotating::{LastTaken, Rotating};

/// A secret. `Debug` shows where it comes from and nothing of it; there is no `Display`.
#[derive(Clone)]
pub struct Secret(Arc<Source>);

enum Source {
    Plain(String),
    Env(String),
    File(PathBuf),
    Credential(String),
}

/// Why a secret cannot be had. Holds names and paths, never the secret.
#[derive(Debug, ThisError)]
pub enum SecretError {
    /// The variable is missing or empty.
    #[error("the environment variable {name} is not set; set it for the service, or use {{ file = \"…\" }}")]
    Environment {
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error(
        "cannot read the secret file {path}: {source}; {}",
        remedy(path, *managed, source.kind())
    )]
    File {
        /// Its path.
        path: PathBuf,
        /// Whether a service manager could hand it over, which can read what the service cannot.
        managed: bool,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file or variable holds nothing.
    #[error("the secret in {place} is empty; put it there")]
    Empty {
        /// Where it was looked for.
        place: String,
    },
    /// systemd passed no credentials.
    #[error(
        "no systemd credential {name}: CREDENTIALS_DIRECTORY is not set; add LoadCredential={name}:/path to the unit, \
         or by hand set the variable to the directory of the file {name}"
    )]
    Credential {
        /// Its name.
        name: String,
    },
}

impl Secret {
    /// A secret that is known already (tests, URLs with a user part).
    pub fn plain(text: &str) -> Self {
        Self(Arc::new(Source::Plain(text.to_owned())))
    }

    /// A secret kept in a file; white space at its end does not count.
    pub fn file(path: &Path) -> Self {
        Self(Arc::new(Source::File(path.to_owned())))
    }

    /// The secret as it stands now: a file is read each time. That costs a few microseconds a request; to look whether
    /// its time or length changed costs as much, and misses a new secret of the same length within the same tick.
    ///
    /// # Errors
    /// [`SecretError`] if it is not where the configuration says.
    pub fn reveal(&self) -> Result<String, SecretError> {
        match &*self.0 {
            Source::Plain(text) if text.trim().is_empty() => {
                Err(SecretError::Empty { place: "the configuration".to_owned() })
            }
            Source::Plain(text) => Ok(text.clone()),
            Source::Env(name) => std::env::var(name)
                .ok()
                .filter(|text| !text.trim().is_empty())
                .map(|text| text.trim().to_owned())
                .ok_or_else(|| SecretError::Environment { name: name.clone() }),
            Source::File(path) => read_file(path, is_managed()),
            Source::Credential(name) => {
                let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                    .ok_or_else(|| SecretError::Credential { name: name.clone() })?;
                read_file(&Path::new(&directory).join(name), false)
            }
        }
    }

    /// True if the secret itself stands in the configuration.
    pub fn is_plain(&self) -> bool {
        matches!(&*self.0, Source::Plain(_))
    }
}

/// Whether systemd has started this process.
fn is_managed() -> bool {
    ["INVOCATION_ID", "NOTIFY_SOCKET"].iter().any(|name| std::env::var_os(name).is_some())
}

fn remedy(path: &Path, managed: bool, kind: ErrorKind) -> String {
    match kind {
        ErrorKind::InvalidData => return "it must hold a text in UTF-8".to_owned(),
        ErrorKind::IsADirectory => return "name the file in it".to_owned(),
        _ => {}
    }
    let mut remedy = "create it, or make it readable for this user".to_owned();
    if managed {
        let name = path.file_name().unwrap_or_default().display();
        let path = path.display();
        remedy += &format!(
            "; or hand it over with LoadCredential={name}:{path} and write {{ credential = \"{name}\" }}"
        );
    }
    remedy
}

fn read_file(path: &Path, managed: bool) -> Result<String, SecretError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SecretError::File { path: path.to_owned(), managed, source })?
        .trim_end()
        .to_owned();
    if text.is_empty() {
        return Err(SecretError::Empty { place: path.display().to_string() });
    }
    Ok(text)
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Source::Plain(_) => out.write_str("Secret(in the configuration)"),
            Source::Env(name) => write!(out, "Secret(env {name})"),
            Source::File(path) => write!(out, "Secret(file {})", path.display()),
            Source::Credential(name) => write!(out, "Secret(credential {name})"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reference {
    File(PathBuf),
    Env(String),
    Credential(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelled {
    Plain(String),
    Reference(Reference),
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The reason serde gives could repeat the value: say what is allowed instead.
        let spelled = Spelled::deserialize(deserializer).map_err(|_| {
            D::Error::custom(
                "a secret is { file = \"/path\" }, { env = \"NAME\" }, { credential = \"name\" } or a text",
            )
        })?;
        let meant = match &spelled {
            Spelled::Plain(text) => text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')),
            Spelled::Reference(Reference::Env(name)) => {
                name.strip_prefix('$').map(|rest| rest.trim_start_matches('{').trim_end_matches('}'))
            }
            Spelled::Reference(_) => None,
        };
        if let Some(name) = meant {
            let message = format!("nothing is expanded here as in a shell; write {{ env = \"{name}\" }}");
            return Err(D::Error::custom(message));
        }
        Ok(Self(Arc::new(match spelled {
            Spelled::Plain(text) => Source::Plain(text),
            Spelled::Reference(Reference::Env(name)) => Source::Env(name),
            Spelled::Reference(Reference::Credential(name)) => Source::Credential(name),
            Spelled::Reference(Reference::File(path)) => Source::File(path),
        })))
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |key: &str| {
            json_schema!({
                "type": "object", "properties": { key: { "type": "string" } }, "required": [key],
                "additionalProperties": false
            })
        };
        json_schema!({ "oneOf": [{ "type": "string" }, one("file"), one("env"), one("credential")] })
    }
}

/// What somebody else says as it may stand in a message: on one line, without what is no printable character, and of so
/// many characters at most. A word that does not end before that is left out: of a secret that was cut in its middle, half
/// would stay, which nobody would recognise and blot out.
pub fn excerpt(said: &str, most_characters: usize) -> String {
    let end = said.char_indices().nth(most_characters).map_or(said.len(), |(end, _)| end);
    let (kept, cut) = said.split_at(end);
    // Keys, paths and passwords have all kinds of signs in them, but no blanks and no quotes.
    let word = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '<' | '>');
    let kept = if cut.is_empty() { kept } else { kept.trim_end_matches(word) };
    let mut line: String = kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if !cut.is_empty() {
        line.push('…');
    }
    line
}

/// Puts `***` wherever a secret stands in what somebody else says, spelled as it is, or with the escapes of JSON, HTML or
/// URLs: `a=b` may come back as `a\u003db`.
pub fn blot_out(secret: &str, text: &mut String) {
    const BLOT: &str = "***";
    /// Blotting out shorter texts would garble messages and protect nothing.
    const SHORTEST: usize = 4;
    if secret.len() < SHORTEST {
        return;
    }
    if text.contains(secret) {
        *text = text.replace(secret, BLOT);
    }
    let mut from = 0;
    while let Some(rest) = text.get(from..).filter(|rest| rest.contains(['\\', '&', '%', '+'])) {
        let spelled = |at| Some((at, spelled(secret, rest.get(at..)?)?));
        let found = rest.char_indices().find_map(|(at, _)| spelled(at));
        let Some((at, length)) = found.filter(|(_, length)| *length > 0) else { return };
        text.replace_range(from + at..from + at + length, BLOT);
        from += at + BLOT.len();
    }
}

/// How many bytes of the text spell a secret, if it begins with that.
fn spelled(secret: &str, text: &str) -> Option<usize> {
    let mut rest = text;
    for wanted in secret.chars() {
        let length = escaped(wanted, rest).or_else(|| rest.starts_with(wanted).then(|| wanted.len_utf8()))?;
        rest = rest.get(length..)?;
    }
    Some(text.len() - rest.len())
}

/// How many bytes of the text spell a character with an escape, if it begins with one for that.
fn escaped(wanted: char, text: &str) -> Option<usize> {
    let code =
        |digits: &str, radix| u32::from_str_radix(digits, radix).is_ok_and(|code| code == u32::from(wanted));
    match text.as_bytes().first()? {
        b'\\' if text.get(1..2) == Some("u") => code(text.get(2..6)?, 16).then_some(6),
        b'\\' => text.get(1..)?.starts_with(wanted).then(|| 1 + wanted.len_utf8()),
        b'%' => code(text.get(1..3)?, 16).then_some(3),
        b'+' => (wanted == ' ').then_some(1),
        b'&' => {
            let (name, _) = text.get(1..)?.split_once(';')?;
            let is_it = match name.strip_prefix('#') {
                Some(number) => match number.strip_prefix(['x', 'X']) {
                    Some(number) => code(number, 16),
                    None => code(number, 10),
                },
                None => [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\'')]
                    .contains(&(name, wanted)),
            };
            is_it.then(|| name.len() + 2)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_read_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let secret = Secret::file(&path);
        assert_eq!(secret.reveal().unwrap(), "first");
        std::fs::write(&path, "other\n").unwrap();
        assert_eq!(secret.reveal().unwrap(), "other", "as long as the first, and of the same moment");
        std::fs::write(&path, "\n").unwrap();
        assert!(secret.reveal().unwrap_err().to_string().contains("is empty"));
    }

    #[test]
    fn an_empty_secret_is_none_wherever_it_stands() {
        let plain: Secret = serde_json::from_str("\" \"").unwrap();
        let error = plain.reveal().unwrap_err().to_string();
        assert!(error.contains("is empty") && error.contains("configuration"), "{error}");
    }

    #[test]
    fn a_secret_file_that_cannot_be_read_is_told_with_what_helps() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("binary");
        std::fs::write(&binary, b"\xff\xfe").unwrap();
        for (path, remedy) in [
            (binary.as_path(), "it must hold a text in UTF-8"),
            (directory.path(), "name the file in it"),
            (Path::new("/none"), "create it, or make it readable for this user"),
        ] {
            let error = read_file(path, false).unwrap_err().to_string();
            assert!(error.ends_with(remedy), "{error}");
        }
    }

    #[test]
    fn neither_debug_nor_errors_show_a_secret() {
        let plain: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert!(!format!("{plain:?}").contains("hunter2"));
        let error = serde_json::from_str::<Secret>(r#"{"value":"hunter2"}"#).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.contains("env"), "{error}");
        let missing: Secret = serde_json::from_str(r#"{"env":"AUDITFERRY_NO_SUCH_VARIABLE"}"#).unwrap();
        assert!(missing.reveal().unwrap_err().to_string().contains("AUDITFERRY_NO_SUCH_VARIABLE"));
    }

    #[test]
    fn a_secret_is_blotted_out_however_it_is_spelled_and_nothing_else_is() {
        let blotted = |secret: &str, text: &str| {
            let mut text = text.to_owned();
            blot_out(secret, &mut text);
            text
        };
        for (secret, text, expected) in [
            (
                "a=b/c",
                r"x a=b/c, a\u003db\/c and a%3db%2Fc&#61; a&#x3D;b&#47;c.",
                "x ***, *** and ***&#61; ***.",
            ),
            ("<&>\"'", "&lt;&amp;&gt;&quot;&apos; and &lt;&amp;&gt;&#34;&#39;", "*** and ***"),
            ("a bc", "a+bc a%20bc a bc a\u{e9}bc", "*** *** *** a\u{e9}bc"),
            (r"a\bc", r"a\bc a\\bc a\u005cbc", "*** *** ***"),
            ("a%2Fb+", "a%2Fb+ a%252Fb%2B", "*** ***"),
            ("\u{e9}t\u{e9}", r"\u00e9t\u00E9 \u00e9t", r"*** \u00e9t"),
            (
                "hunter2",
                r"hunter3 hunte\r2 h&unter2 &; %hunter %2 \u12 \",
                r"hunter3 *** h&unter2 &; %hunter %2 \u12 \",
            ),
        ] {
            assert_eq!(blotted(secret, text), expected, "{secret}");
        }
    }

    #[test]
    fn what_is_cut_ends_with_a_whole_word_and_stays_on_its_line() {
        assert_eq!(excerpt("a\nb\u{1b}[2J é", 99), "a b [2J é");
        assert_eq!(excerpt("who is hunter2?", 10), "who is …");
        assert_eq!(excerpt("{\"key\":\"hunter2\"}", 12), "{\"key\":\"…");
        assert_eq!(excerpt("hunter2hunter2", 7), "…");
        assert_eq!(excerpt("hunter2", 7), "hunter2");
    }
}
