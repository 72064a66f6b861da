//! What a secret looks like, and where it ends.

use std::ops::Range;

use super::runs::{Runs, length};

/// Part of a name that tells of a secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) text: &'static str,
    /// How much of its beginning is not looked for, but looked at once the rest is found. The beginnings are what many
    /// harmless words begin with (`account`, `access`, `pass`), and the search stops at each of those: without them it
    /// takes a third less time.
    pub(super) common: usize,
}

impl Name {
    /// What is looked for.
    pub(super) fn rare(&self) -> &'static str {
        self.text.get(self.common..).unwrap_or(self.text)
    }
}

const fn name(text: &'static str, common: usize) -> Name {
    Name { text, common }
}

/// Parts of names that tell of a secret, in the spellings that occur: what the whole name says is looked at after.
pub(super) const NAMES: &[Name] = &[
    name("://", 0),              // see URL
    name("PRIVATE KEY-----", 6), // see PRIVATE_KEY
    name("assword", 2),
    name("ASSWORD", 2),
    name("asswd", 1),
    name("ASSWD", 1),
    name("assphrase", 2),
    name("pwd", 0),
    name("Pwd", 0),
    name("PWD", 0),
    name("ecret", 0),
    name("ECRET", 0),
    name("oken", 0),
    name("OKEN", 0),
    name("piKey", 1),
    name("pikey", 1),
    name("pi_key", 1),
    name("pi-key", 1),
    name("PI_KEY", 1),
    name("ccountKey", 5),
    name("account.key", 6),
    name("ccessKey", 4),
    name("ccess_key", 4),
    name("ccess.key", 4),
    name("CCESS_KEY", 4),
    name("rivateKey", 5),
    name("rivate_key", 5),
    name("RIVATE_KEY", 5),
    name("string_value", 5),
    name("bytes_value", 4),
    name("uthorization", 6),
    name("earer ", 2),
    name("sig=", 0),
];

/// Where a part of a name lies, of which the rare end was found; `None` if it does not begin as it should.
pub(super) fn named_at(text: &[u8], name: &Name, end: usize) -> Option<Range<usize>> {
    let part = end.checked_sub(name.text.len())?..end;
    (text.get(part.clone())? == name.text.as_bytes()).then_some(part)
}

/// Where `://` stands in [`NAMES`].
pub(super) const URL: usize = 0;
/// Where the private key stands in [`NAMES`].
pub(super) const PRIVATE_KEY: usize = 1;

/// A kind of token that is known by how it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) prefix: &'static str,
    /// Fewest characters after the prefix.
    least: usize,
    /// Which characters.
    alphabet: fn(u8) -> bool,
}

/// The tokens, after the formats that their makers document.
pub(super) const TOKENS: &[Token] = &[
    // Databricks: personal access tokens, OAuth secrets of service principals.
    Token { prefix: "dapi", least: 32, alphabet: hexadecimal },
    Token { prefix: "dkea", least: 32, alphabet: hexadecimal },
    Token { prefix: "dose", least: 32, alphabet: hexadecimal },
    // JSON web tokens: `{"` in base64.
    Token { prefix: "eyJ", least: 40, alphabet: jwt },
    Token { prefix: "ghp_", least: 30, alphabet: word },
    Token { prefix: "gho_", least: 30, alphabet: word },
    Token { prefix: "ghu_", least: 30, alphabet: word },
    Token { prefix: "ghs_", least: 30, alphabet: word },
    Token { prefix: "ghr_", least: 30, alphabet: word },
    Token { prefix: "github_pat_", least: 22, alphabet: word },
    Token { prefix: "glpat-", least: 20, alphabet: dashed },
    Token { prefix: "xoxb-", least: 10, alphabet: dashed },
    Token { prefix: "xoxp-", least: 10, alphabet: dashed },
    Token { prefix: "xoxa-", least: 10, alphabet: dashed },
    Token { prefix: "AIza", least: 35, alphabet: dashed },
    Token { prefix: "sk-ant-", least: 20, alphabet: dashed },
    Token { prefix: "sk-proj-", least: 20, alphabet: dashed },
    Token { prefix: "sk_live_", least: 20, alphabet: word },
    Token { prefix: "hf_", least: 30, alphabet: word },
    Token { prefix: "npm_", least: 30, alphabet: word },
];

/// How the names of secrets end, as [`normalized`] spells them. A storage account's key is named before its account.
const SECRET_ENDS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "secretkey",
    "secretvalue",
    "secretaccesskey",
    "sharedaccesskey",
    "accountkey",
    "apikey",
    "privatekey",
    "token",
    "tokenvalue",
    "stringvalue",
    "bytesvalue",
    "authorization",
    "bearer",
];

/// What the names of Azure's storage keys contain, before the account.
const AZURE_KEY: &str = "fsazureaccountkey";
/// Most bytes of such a name from there on: the name of a host has no more than 253.
const MOST_OF_AZURE_KEY: usize = 300;

/// Digits of base64 in such a key of 64 bytes, without the padding.
const STORAGE_KEY: usize = 86;

/// Names that end like one and are none: pages, counts.
const HARMLESS_ENDS: &[&str] = &["pagetoken", "nexttoken", "continuationtoken", "synctoken", "maxtoken"];

fn hexadecimal(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn dashed(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

fn jwt(byte: u8) -> bool {
    dashed(byte) || byte == b'.'
}

pub(super) fn in_name(byte: u8) -> bool {
    jwt(byte)
}

/// A name in lower case, without what joins its words.
pub(super) fn normalized(name: &[u8]) -> String {
    name.iter()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect()
}

/// True where a name is one of a secret. It is compared as [`normalized`] would spell it, and from its end on, since most
/// names that are looked at are none.
pub(super) fn is_secret_name(name: &[u8]) -> bool {
    let Some(last) = name.iter().rfind(|byte| byte.is_ascii_alphanumeric()) else { return false };
    let last = last.to_ascii_lowercase();
    // By the last character first: few of the names that are looked at end with that of a secret.
    let ends = |ends: &[&str]| {
        ends.iter().any(|end| end.as_bytes().last() == Some(&last) && end_of(name, end).is_some())
    };
    (ends(SECRET_ENDS) && !ends(HARMLESS_ENDS)) || is_name(name, "sig") || is_azure_key(name)
}

/// True where a name is that of a storage account's key: `fs.azure.account.key.` and what may be a host.
fn is_azure_key(name: &[u8]) -> bool {
    let end = name.get(name.len().saturating_sub(MOST_OF_AZURE_KEY)..).unwrap_or(name);
    (AZURE_KEY.len()..=end.len()).any(|to| end.get(..to).is_some_and(|to| end_of(to, AZURE_KEY).is_some()))
}

/// The key of a storage account not far behind its name, whatever code stands between them: the account is mostly a variable
/// (`f"fs.azure.account.key.{account}.dfs.core.windows.net", "…"`), and settings are separated by blanks.
pub(super) fn azure_key(text: &[u8], name: Range<usize>) -> Option<Range<usize>> {
    if !is_azure_key(text.get(name.clone())?) {
        return None;
    }
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let mut at = name.end;
    while at <= name.end + MOST_OF_AZURE_KEY {
        let rest = text.get(at..)?;
        let run = rest.iter().take(2 * STORAGE_KEY).take_while(|byte| base64(**byte)).count();
        let after = rest.get(run..)?;
        if run == 2 * STORAGE_KEY || after.starts_with(b"[redacted:") {
            // No key is as long; and what was taken out before a key was the key, or it would be found a second time.
            return None;
        }
        if run == STORAGE_KEY {
            let pads = after.iter().take_while(|byte| **byte == b'=').count();
            return Some(at..at + run + pads.min(2));
        }
        at += run + 1;
    }
    None
}

/// True for this name, however it is spelled.
pub(super) fn is_name(name: &[u8], normalized: &str) -> bool {
    end_of(name, normalized).is_some_and(|rest| !rest.iter().any(u8::is_ascii_alphanumeric))
}

/// What comes before this end of a name; `None` where it ends otherwise.
fn end_of<'n>(name: &'n [u8], end: &str) -> Option<&'n [u8]> {
    let mut rest = name;
    for wanted in end.bytes().rev() {
        loop {
            let (last, before) = rest.split_last()?;
            rest = before;
            if last.is_ascii_alphanumeric() {
                if last.to_ascii_lowercase() != wanted {
                    return None;
                }
                break;
            }
        }
    }
    Some(rest)
}

/// What a secret is never: a reference to where it is kept, nothing, or what was redacted before.
pub(super) fn is_placeholder(value: &[u8]) -> bool {
    // Longer than any of these.
    let lower = value.get(..16).unwrap_or(value).to_ascii_lowercase();
    matches!(lower.as_slice(), b"null" | b"none" | b"true" | b"false" | b"undefined")
        || [b"{{".as_slice(), b"${", b"[redacted", b"redacted", b"<", b"***", b"string", b"varchar"]
            .iter()
            .any(|start| lower.starts_with(start))
}

/// A token that begins here, behind a secret that ended at `after` or behind nothing of a word.
pub(super) fn token(
    text: &[u8],
    after: usize,
    start: usize,
    kind: &Token,
    runs: &mut Runs,
) -> Option<Range<usize>> {
    let before = text.get(after..start)?;
    if before.last().is_some_and(|&byte| word(byte)) && !ends_with_escape(before) {
        return None;
    }
    let is_jwt = kind.prefix == "eyJ";
    if is_jwt && start < runs.no_jwt_before {
        return None;
    }
    let end = start + kind.prefix.len() + length(text, start + kind.prefix.len(), kind.alphabet);
    // A full stop after the token is the sentence's.
    let token = text.get(start..end)?;
    let length = token.len() - token.iter().rev().take_while(|byte| **byte == b'.').count();
    let dots = || token.iter().filter(|byte| **byte == b'.').count();
    if length < kind.prefix.len() + kind.least || (is_jwt && dots() < 2) {
        // Nor has one that begins within it and ends where it ends.
        runs.no_jwt_before = if is_jwt { end } else { runs.no_jwt_before };
        return None;
    }
    // Databricks numbers tokens behind a dash.
    let more = match text.get(start + length..) {
        Some([b'-', digit, ..]) if kind.prefix == "dapi" && digit.is_ascii_digit() => 2,
        _ => 0,
    };
    Some(start..start + length + more)
}

/// True where the last character is the letter of an escape (`\n`), not of a word.
fn ends_with_escape(text: &[u8]) -> bool {
    let backslashes = |text: &[u8]| text.iter().rev().take_while(|byte| **byte == b'\\').count();
    match text {
        [before @ .., b'b' | b'f' | b'n' | b'r' | b't'] => backslashes(before) % 2 == 1,
        [before @ .., b'u', _, _, _, _] => backslashes(before) % 2 == 1,
        _ => false,
    }
}

/// The value given to the name: behind `:`, `=` or `=>`, or behind a comma where the name is a quoted argument.
///
/// ```text
///   "password":"x"   \"password\": \"x\"   password='x'   password=x;   .option(\"password\", \"x\")   Bearer x
/// ```
pub(super) fn named_value(text: &[u8], name: Range<usize>, runs: &mut Runs) -> Option<Range<usize>> {
    let bearer =
        text.get(name.clone())?.last_chunk::<6>().is_some_and(|end| end.eq_ignore_ascii_case(b"bearer"));
    let mut at = name.end;
    let quoted = quote(text, at);
    if let Some(quote) = &quoted {
        at = quote.end;
    }
    let spaces = blanks(text, at);
    at += spaces;
    match text.get(at..)? {
        _ if bearer && quoted.is_none() && spaces > 0 => return bare(text, at, runs),
        [b'=', b'>', ..] => at += 2,
        [b':' | b'=', ..] => at += 1,
        [b',', ..] if quoted.is_some() && is_argument(text, name.start) => at += 1,
        _ => return None,
    }
    let assigned = text.get(at - 1) == Some(&b'=');
    let gap = blanks(text, at);
    match quote(text, at + gap) {
        Some(open) => opens_value(text, &open, quoted.as_ref()).then(|| open.end..closing(text, &open)),
        // Code assigns names of variables; only connection strings, URLs and settings give values without quotes.
        None if assigned && spaces == 0 && gap == 0 => bare(text, at, runs),
        None => None,
    }
}

/// True where the name is the first argument of a call: elsewhere, what follows its comma is the next name.
fn is_argument(text: &[u8], name_start: usize) -> bool {
    let before = text.get(..name_start).unwrap_or_default();
    let opening = before.iter().rev().find(|byte| !matches!(byte, b'"' | b'\'' | b'\\' | b' '));
    opening == Some(&b'(')
}

/// A quote with the backslashes that escape it.
struct Quote {
    byte: u8,
    escapes: usize,
    end: usize,
}

fn quote(text: &[u8], at: usize) -> Option<Quote> {
    let escapes = text.get(at..)?.iter().take_while(|byte| **byte == b'\\').count();
    let byte = *text.get(at + escapes)?;
    matches!(byte, b'"' | b'\'').then_some(Quote { byte, escapes, end: at + escapes + 1 })
}

/// Whether a quote behind a name opens a value, or closes the string of JSON that the name is the last word of.
fn opens_value(text: &[u8], open: &Quote, name: Option<&Quote>) -> bool {
    match (open.byte, name) {
        (b'"', Some(Quote { byte: b'"', escapes, .. })) => open.escapes == *escapes,
        (b'"', _) => {
            open.escapes > 0 && !matches!(text.get(open.end), None | Some(b',' | b'}' | b']' | b'"'))
        }
        _ => true,
    }
}

/// Where the value in these quotes ends: where they close, or a string of JSON that the value lies in.
fn closing(text: &[u8], open: &Quote) -> usize {
    let mut escapes = 0;
    for (at, &byte) in text.iter().enumerate().skip(open.end) {
        let own = match byte {
            b'"' => closes_json(escapes, open),
            // SQL and code escape `'` with a backslash, which JSON doubles.
            b'\'' if open.byte == byte && escapes % 4 == open.escapes % 4 => Some(open.escapes.min(escapes)),
            _ => None,
        };
        if let Some(own) = own {
            return at - own;
        }
        escapes = if byte == b'\\' { escapes + 1 } else { 0 };
    }
    text.len()
}

/// The backslashes of its own of a `"` that closes a string of JSON on the level of the opening quote or above it. On
/// the levels a quote stands behind 0, 1, 3, 7, … backslashes, and twice that many and two more are one of the text.
fn closes_json(escapes: usize, open: &Quote) -> Option<usize> {
    let mut level = 0;
    loop {
        if escapes >= level && (escapes - level).is_multiple_of(2 * (level + 1)) {
            return Some(level);
        }
        level = 2 * level + 1;
        if level > open.escapes || open.byte != b'"' {
            return None;
        }
    }
}

/// What a value without quotes is made of.
pub(super) fn is_bare(byte: u8) -> bool {
    byte > b' ' && !b"\"'\\,;&()<>{}[]|`".contains(&byte)
}

/// A value without quotes; what is called or looked up is none.
fn bare(text: &[u8], start: usize, runs: &mut Runs) -> Option<Range<usize>> {
    let end = runs.bare_end(text, start);
    let called = matches!(text.get(end), Some(b'(' | b'[' | b'{'));
    (end > start && !called).then_some(start..end)
}

/// White space from here on; between the tokens of JSON that is more than blanks.
fn blanks(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The password of `scheme://user:password@host`.
pub(super) fn url_password(text: &[u8], after_scheme: usize) -> Option<Range<usize>> {
    let ends = |byte: &u8| *byte <= b' ' || b"/?#\"'\\<>@,;()".contains(byte);
    let rest = text.get(after_scheme..)?;
    let end = rest.iter().position(ends).filter(|end| rest.get(*end) == Some(&b'@'))?;
    let login = rest.get(..end)?;
    let colon = login.iter().position(|byte| *byte == b':')?;
    let value = after_scheme + colon + 1..after_scheme + end;
    // A mark's colon is none of a URL's; and where a secret was taken out, so may be the slash that ended the host.
    let marked = memchr::memmem::find(login, b"[redacted:").is_some();
    let telling = !marked && !value.is_empty() && !is_placeholder(text.get(value.clone())?);
    telling.then_some(value)
}

/// What stands between the lines `-----BEGIN … PRIVATE KEY-----` and `-----END`; the hit is the end of the first.
pub(super) fn private_key(text: &[u8], hit: Range<usize>) -> Option<Range<usize>> {
    let line = text.get(..hit.start)?.get(hit.start.saturating_sub(32)..)?;
    line.windows(10).any(|window| window == b"-----BEGIN").then_some(())?;
    let rest = text.get(hit.end..)?;
    if is_placeholder(rest) {
        return None;
    }
    // A key that was cut off ends with its string.
    let ends = |at: &usize| {
        rest.get(*at..).is_some_and(|rest| rest.starts_with(b"\"") || rest.starts_with(b"-----END"))
    };
    let mut end = (0..rest.len()).find(ends).unwrap_or(rest.len());
    while end > 0 && rest.get(end - 1) == Some(&b'\\') {
        end -= 1;
    }
    (end > 0).then_some(hit.end..hit.end + end)
}
