//! Small tools over JSON text that is already known to be valid.
//!
//! The decoder validates a line once ([`scan`], or `serde_json` where that gives up); what follows works on slices of that
//! line, so that a value which needs no change is copied and never parsed a second time into a tree.

use std::borrow::Cow;

use memchr::memchr3;
use scan::Seen;
use walk::string_end;

pub mod apart;
pub mod edit;
pub mod envelope;
pub mod object;
pub mod scan;
mod walk;

pub use walk::{Kind, Members, elements, kind, members};

/// A JSON string: its text with the quotes and in *canonical escapes*, ready to be written.
///
/// Canonical means: the two-character escapes where JSON has one, `\u00xx` (lower case) for the other control
/// characters, and nothing else escaped. One string thus has one spelling, which is what lets [`Text`] be hashed
/// and compared without decoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    /// Takes a JSON string from valid JSON, quotes included. Only a string with a `\/` or `\u` escape is rewritten.
    pub fn from_json(quoted: &'a str) -> Self {
        Self::from_seen(quoted, Seen::UNKNOWN)
    }

    /// The same where it is known what the string holds.
    pub fn from_seen(quoted: &'a str, seen: Seen) -> Self {
        if seen.foreign_escapes && has_foreign_escape(quoted.as_bytes()) {
            return Self(Cow::Owned(quote(&unescape(quoted))));
        }
        Self(Cow::Borrowed(quoted))
    }

    /// Takes a name that needs no escape: given with its quotes, it is borrowed.
    pub const fn from_static(quoted: &'static str) -> Text<'static> {
        Text(Cow::Borrowed(quoted))
    }

    /// Takes a string that was written with its quotes and canonical escapes.
    pub fn from_canonical(quoted: impl Into<Cow<'a, str>>) -> Self {
        Text(quoted.into())
    }

    /// Takes plain text and escapes what JSON wants escaped.
    pub fn from_plain(plain: &str) -> Text<'static> {
        Text(Cow::Owned(quote(plain)))
    }

    /// The string as it is written in a document, with its quotes.
    pub fn quoted(&self) -> &str {
        &self.0
    }

    /// What stands between the quotes, still escaped.
    pub fn escaped(&self) -> &str {
        between_quotes(&self.0)
    }

    /// The string itself.
    pub fn plain(&self) -> Cow<'_, str> {
        unescape(&self.0)
    }

    /// True for `""`.
    pub fn is_empty(&self) -> bool {
        self.0.len() <= 2
    }

    /// Compares with text that contains nothing JSON would escape (a name, a number).
    pub fn is(&self, plain: &str) -> bool {
        self.escaped() == plain
    }

    /// Gives up the borrow, for a value that was computed rather than read.
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }
}

/// What stands between the quotes of a JSON string, still escaped.
pub fn between_quotes(quoted: &str) -> &str {
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default()
}

/// Appends `plain` as a JSON string, quotes included.
pub fn write_quoted(plain: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(plain, out);
    out.push(b'"');
}

/// Appends `plain` with JSON's escapes and without quotes.
pub fn write_escaped(plain: &str, out: &mut Vec<u8>) {
    let mut rest = plain.as_bytes();
    out.reserve(rest.len() + rest.len() / 8);
    // Eight bytes are copied before it is known how many of them stay: runs between quotes are short, and a call of
    // `memcpy` for each costs more.
    while let Some((word, after)) = rest.split_first_chunk() {
        out.extend_from_slice(word);
        let Some(clean) = scan::first_escapable(word) else {
            rest = after;
            continue;
        };
        out.truncate(out.len() - word.len() + clean);
        let Some((&byte, after)) = rest.get(clean..).and_then(<[u8]>::split_first) else { break };
        write_escape(byte, out);
        rest = after;
    }
    for &byte in rest {
        if scan::is_escapable(byte) {
            write_escape(byte, out);
        } else {
            out.push(byte);
        }
    }
}

#[inline]
fn write_escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        // Nearly all there are, in JSON that becomes a text.
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        _ => write_control(byte, out),
    }
}

fn write_control(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        control => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            for nibble in [control >> 4, control & 0x0f] {
                out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
            }
        }
    }
}

/// Makes one JSON string of the text that stands in `out` from `start` on, as protocols want it that carry a document
/// as text.
pub fn quote_from(start: usize, out: &mut Vec<u8>) {
    let text = out.split_off(start);
    write_quoted(&String::from_utf8_lossy(&text), out);
}

/// Appends an unsigned number in decimal.
pub fn write_number(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut rest = number;
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

fn quote(plain: &str) -> String {
    let mut out = Vec::with_capacity(plain.len() + 2);
    write_quoted(plain, &mut out);
    // Escaping inserts ASCII between whole characters, so this never replaces anything.
    String::from_utf8(out).unwrap_or_default()
}

/// True if a JSON string needs no rewriting to have canonical escapes.
pub fn is_canonical(quoted: &str) -> bool {
    !has_foreign_escape(quoted.as_bytes())
}

/// True where a string holds an escape that canonical text spells differently.
fn has_foreign_escape(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        match rest.get(at + 1) {
            Some(b'u' | b'/') => return true,
            _ => rest = rest.get(at + 2..).unwrap_or_default(),
        }
    }
    false
}

/// Decodes a JSON string (quotes included). A lone surrogate, which JSON allows and UTF-8 does not, becomes U+FFFD.
pub fn unescape(quoted: &str) -> Cow<'_, str> {
    let inner = between_quotes(quoted);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(rest.get(..at).unwrap_or_default());
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        let mut used = at + 2;
        match escape {
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'u' => {
                let (character, length) = unicode_escape(rest.get(used..).unwrap_or_default());
                out.push(character);
                used += length;
            }
            other => out.push(char::from(other)),
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Reads what follows `\u`: the character and how many bytes it took (4, or 10 for a surrogate pair).
fn unicode_escape(text: &str) -> (char, usize) {
    let unit = |at: usize| text.get(at..at + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let Some(first) = unit(0) else { return ('\u{fffd}', 0) };
    if let Some(character) = char::from_u32(first) {
        return (character, 4);
    }
    if first < 0xdc00
        && text.get(4..6) == Some("\\u")
        && let Some(second @ 0xdc00..=0xdfff) = unit(6)
        && let Some(character) = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    {
        return (character, 10);
    }
    ('\u{fffd}', 4)
}

/// Appends a valid JSON value without the white space between its tokens; strings take their canonical escapes.
pub fn write_compact(value: &str, out: &mut Vec<u8>) {
    let bytes = value.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = string_end(bytes, at);
                out.extend_from_slice(
                    Text::from_json(value.get(at..end).unwrap_or("\"\"")).quoted().as_bytes(),
                );
                at = end;
            }
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            _ => {
                let rest = bytes.get(at + 1..).unwrap_or_default();
                let stop = memchr3(b'"', b' ', b'\n', rest).unwrap_or(rest.len());
                let plain = bytes.get(at..at + 1 + stop).unwrap_or_default();
                out.extend(plain.iter().copied().filter(|byte| !matches!(byte, b'\t' | b'\r')));
                at += 1 + stop;
            }
        }
    }
}

#[cfg(test)]
mod tests;
