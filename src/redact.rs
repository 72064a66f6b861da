//! Finds secrets in the text of a record and puts a keyed hash in their place.
//!
//! It works on the JSON text as it stands, before anything is decoded: a password is found alike in a parameter, in
//! the command somebody ran, and in JSON that lies in a string of JSON. What it puts there has no quote and no
//! backslash, and it never takes one away, so that the text stays the JSON it was.
//!
//! ```text
//!   needles (one pass, SIMD) ──► is it a name?  password = '…' , \"client_secret\":\"…\"  ──► the value, if it is one
//!                            └─► is it a token? dapi…, eyJ….….…, ghp_…                   ──► the token
//! ```
//!
//! A hit is looked at by a few lines of code, not by a regular expression: a case-insensitive one over every record
//! would cost more than the whole mapping. Equal secrets get equal marks, so that their use can still be followed;
//! the key keeps anybody from trying out guesses.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::bytes::Regex;
use sha2::{Digest, Sha256};

mod runs;
mod secrets;

use runs::Runs;
use secrets::{
    NAMES, TOKENS, azure_key, is_name, is_secret_name, named_at, named_value, private_key, token,
    url_password,
};

/// Shortest value of a telling name that counts as a secret: shorter ones are flags, numbers and placeholders.
const MIN_VALUE_BYTES: usize = 4;
/// The same behind `Bearer`, which is also a word.
const MIN_BEARER_BYTES: usize = 16;

/// What to look for, and the key of the marks.
#[derive(Clone)]
pub struct Redactor {
    needles: AhoCorasick,
    /// Names of parameters that hold secrets besides the known ones, as [`secrets::normalized`] spells them.
    names: Vec<String>,
    /// Finds these names in every spelling, if there are any.
    spellings: Option<Regex>,
    patterns: Vec<Regex>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Redactor").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What a hit is of.
#[derive(Clone, Copy, Debug)]
enum Needle {
    /// One of [`NAMES`], or of [`TOKENS`] after them.
    Known(usize),
    /// A configured name.
    Configured,
}

/// Whether values of this name can be looked for.
///
/// # Errors
/// Why not, and what to do.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.bytes().all(secrets::in_name) && name.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(format!(
        "`{name}` cannot be looked for: a name has letters from a to z, digits, `_`, `-` and `.`; write what you look for as one \
         of redaction.patterns"
    ))
}

/// What finds names that are given as [`secrets::normalized`] spells them.
fn spellings(names: &[String]) -> Result<Option<Regex>, regex::Error> {
    if names.is_empty() {
        return Ok(None);
    }
    let spelled = |name: &String| name.chars().map(String::from).collect::<Vec<_>>().join("[._-]*");
    let names: Vec<_> = names.iter().map(spelled).collect();
    Regex::new(&format!("(?i-u){}", names.join("|"))).map(Some)
}

/// A text whose secrets are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted {
    /// The text.
    pub text: Vec<u8>,
    /// How many secrets it held.
    pub count: u32,
}

impl Redactor {
    /// Looks for what is known, for the values of `names`, and for what `patterns` match.
    ///
    /// # Errors
    /// The message of a pattern that is no regular expression, or of a name that cannot be looked for, or of too many.
    pub fn new(key: &[u8], names: &[String], patterns: &[String]) -> Result<Self, String> {
        Self::searching(secrets::Name::rare, key, names, patterns)
    }

    /// The same with another part of the known names searched for.
    fn searching(
        part: fn(&secrets::Name) -> &'static str,
        key: &[u8],
        names: &[String],
        patterns: &[String],
    ) -> Result<Self, String> {
        let patterns = patterns.iter().map(|pattern| {
            Regex::new(pattern).map_err(|error| format!("`{pattern}` is no regular expression: {error}"))
        });
        let needles = NAMES.iter().map(|name| part(name).to_owned());
        let needles = needles.chain(TOKENS.iter().map(|token| token.prefix.to_owned()));
        let needles = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(needles);
        names.iter().try_for_each(|name| check_name(name))?;
        let names: Vec<_> = names.iter().map(|name| secrets::normalized(name.as_bytes())).collect();
        let too_many = |error: &dyn std::fmt::Display| format!("cannot look for all of these: {error}");
        Ok(Self {
            needles: needles.map_err(|error| too_many(&error))?,
            spellings: spellings(&names).map_err(|error| too_many(&error))?,
            names,
            patterns: patterns.collect::<Result<_, String>>()?,
            key: key.to_vec(),
        })
    }

    /// The text without its secrets; `None`, as mostly, where it holds none.
    pub fn redact(&self, text: &[u8]) -> Option<Redacted> {
        let mut secrets = self.find(text);
        let known = secrets.len();
        for pattern in &self.patterns {
            secrets.extend(self.matches(pattern, text));
        }
        if secrets.is_empty() {
            return None;
        }
        let by_pattern = secrets.len() > known;
        let redacted = self.without(text, secrets)?;
        // What stood right behind a pattern's match was the rest of a word.
        let more = if by_pattern { self.find(&redacted.text) } else { Vec::new() };
        if more.is_empty() {
            return Some(redacted);
        }
        let again = self.without(&redacted.text, more)?;
        Some(Redacted { count: redacted.count + again.count, ..again })
    }

    /// The text with marks in place of these parts.
    fn without(&self, text: &[u8], mut secrets: Vec<Range<usize>>) -> Option<Redacted> {
        secrets.sort_by_key(|secret| secret.start);
        // Found twice, as a token and as the value of a name; or a part by itself, and with what is before or behind it.
        secrets.dedup_by(|next, secret| {
            let overlap = next.start < secret.end;
            secret.end = if overlap { secret.end.max(next.end) } else { secret.end };
            overlap
        });
        let mut redacted = Redacted { text: Vec::with_capacity(text.len() + 32), count: 0 };
        let mut copied = 0;
        for secret in secrets {
            redacted.text.extend_from_slice(text.get(copied..secret.start)?);
            self.write_mark(text.get(secret.clone())?, &mut redacted.text);
            redacted.count += 1;
            copied = secret.end;
        }
        redacted.text.extend_from_slice(text.get(copied..)?);
        Some(redacted)
    }

    /// What is a secret; hits within one are passed over, those between a name and its value are not.
    ///
    /// ```text
    ///   … secret │ after     name ───────────── value │
    ///            │           hit ► ◄ looked at  ◄ not │
    /// ```
    fn find(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        // The end of the last secret before a hit, and the secret that was found last, which may lie behind the hit.
        let (mut after, mut last) = (0, 0..0);
        let mut runs = Runs::default();
        for (hit, needle) in self.hits(text) {
            if hit.start >= last.end {
                after = last.end;
            } else if hit.start >= last.start {
                continue;
            }
            let secret = match needle {
                Needle::Known(number) => {
                    match (NAMES.get(number), TOKENS.get(number.wrapping_sub(NAMES.len()))) {
                        (Some(name), _) => named_at(text, name, hit.end).and_then(|part| match number {
                            secrets::URL => url_password(text, part.end),
                            secrets::PRIVATE_KEY => private_key(text, part),
                            _ => self.value(text, after, part, &mut runs),
                        }),
                        (None, Some(kind)) => token(text, after, hit.start, kind, &mut runs),
                        (None, None) => None,
                    }
                }
                Needle::Configured => self.value(text, after, hit, &mut runs),
            };
            let Some(secret) = secret else { continue };
            if secret.end <= last.start {
                after = secret.end;
            } else if secret.end > last.end {
                last = secret.clone();
            } else if secret.start < last.start {
                // What is one secret by itself is the end of another one.
                last.start = secret.start;
            } else {
                // The same value by another part of its name.
                continue;
            }
            found.push(secret);
        }
        found
    }

    /// What may be a secret or the name of one, in the order in which it begins.
    fn hits<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = (Range<usize>, Needle)> + 't {
        let known = self.needles.find_iter(text);
        let mut known = known.map(|hit| (hit.range(), Needle::Known(hit.pattern().as_usize()))).peekable();
        let configured = self.spellings.iter().flat_map(|spellings| spellings.find_iter(text));
        let mut configured = configured.map(|hit| (hit.range(), Needle::Configured)).peekable();
        std::iter::from_fn(move || match (known.peek(), configured.peek()) {
            (Some((known_hit, _)), Some((hit, _))) if hit.start < known_hit.start => configured.next(),
            (Some(_), _) => known.next(),
            (None, _) => configured.next(),
        })
    }

    /// The value of the name that a hit is part of, where the name tells of a secret and the value may be one. A secret that
    /// ended at `after` is no part of the name.
    fn value(&self, text: &[u8], after: usize, hit: Range<usize>, runs: &mut Runs) -> Option<Range<usize>> {
        let name = runs.name_around(text, after, hit);
        if runs.is_harmless(&name) {
            return None;
        }
        let value = self.value_of(text, name.clone(), runs);
        if value.is_none() {
            runs.note_harmless(name);
        }
        value
    }

    fn value_of(&self, text: &[u8], name: Range<usize>, runs: &mut Runs) -> Option<Range<usize>> {
        let named = text.get(name.clone())?;
        let is_configured = || self.names.iter().any(|name| is_name(named, name));
        if !is_secret_name(named) && !is_configured() {
            return None;
        }
        let value = named_value(text, name.clone(), runs).or_else(|| azure_key(text, name))?;
        let secret = text.get(value.clone())?;
        let least = if is_name(named, "bearer") { MIN_BEARER_BYTES } else { MIN_VALUE_BYTES };
        let telling = secret.len() >= least && !secrets::is_placeholder(secret);
        telling.then_some(value)
    }

    /// What a configured pattern matches, or its first group; a match over a quote or an escape is left alone, for
    /// without it the text would be no JSON.
    fn matches<'t>(&'t self, pattern: &'t Regex, text: &'t [u8]) -> impl Iterator<Item = Range<usize>> + 't {
        pattern
            .captures_iter(text)
            .filter_map(|found| found.get(1).or_else(|| found.get(0)))
            .filter(|found| {
                !found.is_empty() && !found.as_bytes().iter().any(|byte| matches!(byte, b'"' | b'\\'))
            })
            .map(|found| found.range())
    }

    fn write_mark(&self, secret: &[u8], out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digest = Sha256::new().chain_update(&self.key).chain_update(secret).finalize();
        out.extend_from_slice(b"[redacted:");
        for byte in digest.iter().take(6) {
            for nibble in [byte >> 4, byte & 0x0f] {
                out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
            }
        }
        out.push(b']');
    }
}

#[cfg(test)]
mod tests;
