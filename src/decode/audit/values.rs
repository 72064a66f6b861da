//! Values of single columns: from the JSON text of a record to the canonical form.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::value::RawValue;

use crate::event::{Extra, Extras, Identity, Nested, Params, Response, RunIdentity};
use crate::json::apart::{self, Names};
use crate::json::scan::Seen;
use crate::json::{self, Kind, Text, members};

/// Ends a parameter that Databricks cut at 100 KB.
const TRUNCATED: &str = "... truncated\"";

/// What an empty text stands for in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    IsText,
    IsNone,
}

/// A string column: numbers and booleans become text, `null` nothing, anything else compact JSON as text.
#[inline]
pub(super) fn text(value: &str, seen: Seen, empty: Empty) -> Option<Text<'_>> {
    // Nearly all there is: a string that is taken as it stands.
    if json::kind(value) == Kind::String && !seen.foreign_escapes {
        return (empty == Empty::IsText || value.len() > 2).then(|| Text::from_canonical(value));
    }
    other_text(value, seen).filter(|text| empty == Empty::IsText || !text.is_empty())
}

fn other_text(value: &str, seen: Seen) -> Option<Text<'_>> {
    match json::kind(value) {
        Kind::Null => None,
        Kind::String => Some(Text::from_seen(value, seen)),
        Kind::Number | Kind::Boolean => Some(Text::from_plain(value)),
        Kind::Array | Kind::Object => Some(Text::from_plain(&compact(value, seen))),
    }
}

/// Any value without white space between its tokens.
pub(super) fn compact(value: &str, seen: Seen) -> Cow<'_, str> {
    match json::kind(value) {
        Kind::Null | Kind::Boolean | Kind::Number => Cow::Borrowed(value),
        // Escapes stand in strings only: one look at the whole is cheaper than one at each of its strings.
        kind if (kind == Kind::String || !seen.spaces)
            && (!seen.foreign_escapes || json::is_canonical(value)) =>
        {
            Cow::Borrowed(value)
        }
        _ => {
            let mut out = Vec::with_capacity(value.len());
            json::write_compact(value, &mut out);
            String::from_utf8(out).map_or(Cow::Borrowed(value), Cow::Owned)
        }
    }
}

/// An address: `(address, port)`. `v4:port` and `[v6]:port` are taken apart; what is no address stays as it is.
pub(super) struct Address<'a> {
    pub(super) text: Text<'a>,
    pub(super) port: Option<u16>,
    pub(super) valid: bool,
}

pub(super) fn address(text: Text<'_>) -> Address<'_> {
    if text.escaped().parse::<IpAddr>().is_ok() {
        return Address { text, port: None, valid: true };
    }
    let split = text.escaped().rsplit_once(':').and_then(|(host, port)| {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host.parse::<IpAddr>().ok().map(|_| Text::from_plain(host))?, port.parse::<u16>().ok()?))
    });
    match split {
        Some((host, port)) => Address { text: host, port: Some(port), valid: true },
        None => Address { text, port: None, valid: false },
    }
}

/// What a nested column holds: the object, or a text that should have held one.
pub(super) enum Inner<'a> {
    Null,
    /// The object stands in the record.
    Here(&'a str),
    /// The object was a JSON string; this is its content, valid JSON.
    Unwrapped(String),
    /// No object; the text of what is there.
    NoObject(Text<'a>),
}

/// Opens a nested column that may be an object or a string with an object in it. One level only: a string within
/// stays a string.
pub(super) fn open(value: &str) -> Inner<'_> {
    match json::kind(value) {
        Kind::Null => Inner::Null,
        Kind::Object => Inner::Here(value),
        Kind::String => {
            let content = json::unescape(value);
            match json::kind(content.trim_start()) {
                Kind::Object if serde_json::from_str::<&RawValue>(&content).is_ok() => {
                    Inner::Unwrapped(content.into_owned())
                }
                Kind::Null if content.trim().is_empty() || content.trim() == "null" => Inner::Null,
                _ => Inner::NoObject(Text::from_json(value)),
            }
        }
        _ => Inner::NoObject(Text::from_plain(&compact(value, Seen::UNKNOWN))),
    }
}

/// What the content of a string holds. Escapes stand in strings only: one look at the whole is cheaper than one at each of its
/// keys and values.
fn seen_in(content: &str) -> Seen {
    Seen { foreign_escapes: !json::is_canonical(content), ..Seen::UNKNOWN }
}

/// A nested column whose members have places of their own. `place` takes a member in, or answers `false` if it has no
/// place; such a member becomes an extra named `column.key`.
fn read<'a, T: Default>(
    object: &'a str,
    seen: Seen,
    column: &str,
    extras: &mut Extras<'a>,
    place: fn(&mut T, &str, &'a str, Seen) -> bool,
) -> T {
    let mut target = T::default();
    for (key, value) in members(object) {
        let key = Text::from_seen(key, seen);
        if !place(&mut target, key.escaped(), value, seen) {
            let key = Text::from_canonical(format!("\"{column}.{}\"", key.escaped()));
            extras.push(Extra { key, value: compact(value, seen) });
        }
    }
    target
}

/// What a value says that may stand in quotes: a number, a time.
pub(super) fn unquoted(value: &str) -> Cow<'_, str> {
    if json::kind(value) == Kind::String { json::unescape(value) } else { Cow::Borrowed(value) }
}

/// Takes a text in, unless another spelling of its key gave a different one before.
fn fill<'a>(slot: &mut Option<Text<'a>>, value: &'a str, seen: Seen) -> bool {
    match (text(value, seen, Empty::IsText), &*slot) {
        (None, _) => true,
        (Some(text), Some(known)) => text == *known,
        (text, None) => {
            *slot = text;
            true
        }
    }
}

/// `user_identity`
pub(super) fn identity<'a>(value: &'a str, seen: Seen, extras: &mut Extras<'a>) -> Nested<'a, Identity<'a>> {
    fn place<'a>(identity: &mut Identity<'a>, key: &str, value: &'a str, seen: Seen) -> bool {
        match key {
            "email" => fill(&mut identity.email, value, seen),
            "subject_name" | "subjectName" => fill(&mut identity.subject_name, value, seen),
            _ => false,
        }
    }
    match open(value) {
        Inner::Null => Nested::Null,
        Inner::NoObject(text) => Nested::Raw(text),
        Inner::Here(object) => Nested::Value(read(object, seen, "user_identity", extras, place)),
        Inner::Unwrapped(content) => {
            let mut found = Extras::new();
            let identity = read(&content, seen_in(&content), "user_identity", &mut found, place);
            for extra in found {
                extras.push(extra.into_owned());
            }
            Nested::Value(identity.into_owned())
        }
    }
}

/// `response`
pub(super) fn response<'a>(value: &'a str, seen: Seen, extras: &mut Extras<'a>) -> Nested<'a, Response<'a>> {
    fn place<'a>(response: &mut Response<'a>, key: &str, value: &'a str, seen: Seen) -> bool {
        match key {
            "status_code" | "statusCode" => match unquoted(value).parse() {
                Ok(code) => *response.status_code.get_or_insert(code) == code,
                Err(_) => json::kind(value) == Kind::Null,
            },
            "error_message" | "errorMessage" => fill(&mut response.error_message, value, seen),
            "result" => fill(&mut response.result, value, seen),
            _ => false,
        }
    }
    match open(value) {
        Inner::Null => Nested::Null,
        Inner::NoObject(text) => Nested::Raw(text),
        Inner::Here(object) => Nested::Value(read(object, seen, "response", extras, place)),
        Inner::Unwrapped(content) => {
            let mut found = Extras::new();
            let response = read(&content, seen_in(&content), "response", &mut found, place);
            for extra in found {
                extras.push(extra.into_owned());
            }
            Nested::Value(response.into_owned())
        }
    }
}

/// `identity_metadata`
pub(super) fn run_identity<'a>(
    value: &'a str,
    seen: Seen,
    extras: &mut Extras<'a>,
) -> Nested<'a, RunIdentity<'a>> {
    fn place<'a>(run: &mut RunIdentity<'a>, key: &str, value: &'a str, seen: Seen) -> bool {
        match key {
            "run_by" | "runBy" => fill(&mut run.run_by, value, seen),
            "run_as" | "runAs" => fill(&mut run.run_as, value, seen),
            "acting_resource" | "actingResource" => fill(&mut run.acting_resource, value, seen),
            _ => false,
        }
    }
    match open(value) {
        Inner::Null => Nested::Null,
        Inner::NoObject(text) => Nested::Raw(text),
        Inner::Here(object) => Nested::Value(read(object, seen, "identity_metadata", extras, place)),
        Inner::Unwrapped(content) => {
            let mut found = Extras::new();
            let run = read(&content, seen_in(&content), "identity_metadata", &mut found, place);
            for extra in found {
                extras.push(extra.into_owned());
            }
            Nested::Value(run.into_owned())
        }
    }
}

/// `request_params`, and whether Databricks cut one of them.
pub(super) fn params(value: &str, seen: Seen) -> (Nested<'_, Params<'_>>, bool) {
    match open(value) {
        Inner::Null => (Nested::Null, false),
        Inner::NoObject(text) => (Nested::Raw(text), false),
        Inner::Here(object) => {
            let scan = scan_params(object, seen);
            let text =
                if scan.as_it_is { Cow::Borrowed(object) } else { Cow::Owned(rewrite_params(object, &scan)) };
            (Nested::Value(Params(text)), scan.truncated)
        }
        Inner::Unwrapped(content) => {
            let scan = scan_params(&content, Seen::UNKNOWN);
            let text = if scan.as_it_is { content } else { rewrite_params(&content, &scan) };
            (Nested::Value(Params(Cow::Owned(text))), scan.truncated)
        }
    }
}

struct Scan {
    /// Compact, strings and nulls only, canonical escapes, each name once: to be copied.
    as_it_is: bool,
    truncated: bool,
    /// Two members have one name.
    twins: bool,
}

fn scan_params(object: &str, seen: Seen) -> Scan {
    // Escapes stand in strings only: one pass over the object is cheaper than one over each of its keys and values.
    let as_it_is = !seen.foreign_escapes || json::is_canonical(object);
    let mut scan = Scan { as_it_is, truncated: false, twins: false };
    if !seen.spaces && !seen.others && !seen.doubtful_keys && !may_be_truncated(object) {
        return scan;
    }
    let mut walk = members(object);
    let mut names = Names::default();
    for (key, value) in walk.by_ref() {
        scan.twins |= seen.doubtful_keys && !names.insert(key);
        scan.truncated |= value.ends_with(TRUNCATED) || (key == "\"TRUNCATED\"" && value == "\"\"");
        scan.as_it_is &= matches!(json::kind(value), Kind::String | Kind::Null);
    }
    scan.as_it_is &= !scan.twins && !walk.spaced() && object.ends_with('}');
    scan
}

/// False where the mark cannot be found whose place is then looked at.
fn may_be_truncated(object: &str) -> bool {
    static MARK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(TRUNCATED));
    MARK.find(object.as_bytes()).is_some()
}

fn rewrite_params(object: &str, scan: &Scan) -> String {
    let mut out = Vec::with_capacity(object.len() + 16);
    out.push(b'{');
    // Keys that were spelled differently may be the same.
    let mut doubtful = scan.twins;
    for (index, (key, value)) in members(object).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let spelled = Text::from_json(key);
        doubtful |= spelled.quoted() != key;
        out.extend_from_slice(spelled.quoted().as_bytes());
        out.push(b':');
        crate::canonical::write_text(text(value, Seen::UNKNOWN, Empty::IsText).as_ref(), &mut out);
    }
    out.push(b'}');
    let text = String::from_utf8(out).unwrap_or_default();
    let apart = if doubtful { apart::told_apart(&text) } else { None };
    apart.unwrap_or(text)
}
