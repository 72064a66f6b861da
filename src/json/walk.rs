//! What stands in a valid JSON value, each part a slice of its text.

use super::scan;

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Boolean,
    /// a number of any size
    Number,
    /// a string
    String,
    /// an array
    Array,
    /// an object
    Object,
}

/// The kind of a valid JSON value.
pub fn kind(value: &str) -> Kind {
    match value.as_bytes().first() {
        Some(b'"') => Kind::String,
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b't' | b'f') => Kind::Boolean,
        Some(b'n') | None => Kind::Null,
        Some(_) => Kind::Number,
    }
}

/// Walks the members of a valid JSON object: `(key with quotes, value)`, both as they stand in the text.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    text: &'a str,
    at: usize,
    spaced: bool,
}

/// The members of `object`, which must be valid JSON; anything but an object has none.
pub fn members(object: &str) -> Members<'_> {
    let mut members = Members { text: object, at: 0, spaced: false };
    members.skip_space();
    match object.as_bytes().get(members.at) {
        Some(b'{') => members.at += 1,
        _ => members.at = object.len(),
    }
    members
}

impl<'a> Members<'a> {
    /// True if white space was met between the tokens so far.
    pub fn spaced(&self) -> bool {
        self.spaced
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.as_bytes().get(self.at) {
            self.at += 1;
            self.spaced = true;
        }
    }

    fn take(&mut self, end: usize) -> &'a str {
        let taken = self.text.get(self.at..end).unwrap_or_default();
        self.at = end;
        taken
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_space();
        if self.text.as_bytes().get(self.at) == Some(&b',') {
            self.at += 1;
            self.skip_space();
        }
        if self.text.as_bytes().get(self.at) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(self.text.as_bytes(), self.at);
        let key = self.take(key_end);
        self.skip_space();
        self.at += 1; // the colon
        self.skip_space();
        let value_end = value_end(self.text.as_bytes(), self.at);
        let value = self.take(value_end);
        self.skip_space();
        Some((key, value))
    }
}

/// The elements of a valid JSON array, as they stand in the text; anything but an array has none.
pub fn elements(array: &str) -> impl Iterator<Item = &str> {
    let bytes = array.as_bytes();
    let space = |mut at: usize| {
        while let Some(b' ' | b'\t' | b'\n' | b'\r' | b',') = bytes.get(at) {
            at += 1;
        }
        at
    };
    let start = space(0);
    let mut at = if bytes.get(start) == Some(&b'[') { start + 1 } else { bytes.len() };
    std::iter::from_fn(move || {
        at = space(at);
        if matches!(bytes.get(at), None | Some(b']')) {
            return None;
        }
        let end = value_end(bytes, at);
        let element = array.get(at..end);
        at = end;
        element
    })
}

/// Where the string that opens at `at` ends (after its closing quote).
pub(super) fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut from = at + 1;
    while let Some(found) = scan::special(bytes.get(from..).unwrap_or_default()) {
        let here = from + found;
        if bytes.get(here) == Some(&b'"') {
            return here + 1;
        }
        from = here + 2;
    }
    bytes.len()
}

/// Where the value that opens at `at` ends.
pub(super) fn value_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => string_end(bytes, at),
        Some(b'{' | b'[') => nested_end(bytes, at),
        _ => {
            let mut end = at;
            while let Some(byte) = bytes.get(end) {
                if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
                    break;
                }
                end += 1;
            }
            end
        }
    }
}

fn nested_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0usize;
    let mut from = at;
    while let Some(byte) = bytes.get(from) {
        match byte {
            b'"' => {
                from = string_end(bytes, from);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return from + 1;
                }
            }
            _ => {}
        }
        from += 1;
    }
    bytes.len()
}
