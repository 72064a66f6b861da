//! Cuts a message into the records it carries, also where some of them are broken.
//!
//! | message | records |
//! |---|---|
//! | `{"records":[…]}`, `[…]` | the elements of the array |
//! | lines of JSON | the lines |
//! | anything else | the whole message |
//!
//! A decoder opens envelopes too, but refuses one that is not JSON as a whole: a single broken record would take all
//! others of its message along. Here the brackets are counted, and where they do not match (a string without its end
//! swallows what follows) the next record is what comes after a comma and starts as the first record does.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memmem};
use serde::de::IgnoredAny;

use super::walk::{string_end, value_end};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Broken elements that are followed to the end of the message.
const MOST_DOUBTS: u32 = 16;

/// Where the records of a message lie, in order; none in one that is blank.
pub fn records(message: &[u8]) -> Vec<Range<usize>> {
    let start = if message.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let whole = trimmed(message, start..message.len());
    if whole.is_empty() {
        return Vec::new();
    }
    if let Some(array) = array_start(message, whole.start)
        && let Some(elements) = elements(message, array, whole.clone())
    {
        return elements;
    }
    lines(message, whole.clone()).unwrap_or_else(|| vec![whole])
}

fn slice(bytes: &[u8], range: Range<usize>) -> &[u8] {
    bytes.get(range).unwrap_or_default()
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

fn trimmed(bytes: &[u8], range: Range<usize>) -> Range<usize> {
    let text = slice(bytes, range.clone());
    let start = range.start + (text.len() - text.trim_ascii_start().len());
    start..start + text.trim_ascii().len()
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// Where the value of the member that opens an object begins, and the name of that member with its quotes.
fn first_member(bytes: &[u8], object: usize) -> Option<(&[u8], usize)> {
    let key = skip_space(bytes, object + 1);
    if bytes.get(object) != Some(&b'{') || bytes.get(key) != Some(&b'"') {
        return None;
    }
    let key_end = string_end(bytes, key);
    let colon = skip_space(bytes, key_end);
    (bytes.get(colon) == Some(&b':')).then(|| (slice(bytes, key..key_end), skip_space(bytes, colon + 1)))
}

/// The bracket that opens the array of records.
fn array_start(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) == Some(&b'[') {
        return Some(at);
    }
    let (key, value) = first_member(bytes, at)?;
    (key.eq_ignore_ascii_case(b"\"records\"") && bytes.get(value) == Some(&b'[')).then_some(value)
}

/// The elements of the array; `None` for an envelope that has none or holds more than its records: it is left whole.
fn elements(bytes: &[u8], array: usize, whole: Range<usize>) -> Option<Vec<Range<usize>>> {
    let closing = closing(slice(bytes, whole.clone()), array == whole.start);
    let end = whole.end - closing;
    let mut cutter = Cutter { text: slice(bytes, 0..end), beginning: None, ahead: Ahead::Unknown, doubts: 0 };
    let mut found = Vec::new();
    let mut at = skip_space(bytes, array + 1);
    let mut too_many = false;
    while at < end {
        let byte = bytes.get(at);
        if byte == Some(&b']') && !too_many {
            // A bracket too many: those that close the envelope come later. Or there is more than records in it.
            too_many = true;
            if is_json(slice(bytes, whole.clone())) {
                return None;
            }
        }
        if byte == Some(&b',') {
            at += 1;
        } else {
            let element = cutter.element(at);
            at = element.end;
            found.push(without_comma(bytes, element));
        }
        at = skip_space(bytes, at);
    }
    (!found.is_empty()).then_some(found)
}

/// Finds the ends of elements.
struct Cutter<'a> {
    text: &'a [u8],
    /// What the first object starts with: `{"time":`.
    beginning: Option<memmem::Finder<'a>>,
    /// Where the next one begins that was looked for last: to look again for each element could take the square of the
    /// message's length.
    ahead: Ahead,
    /// How often an element looked as if another had begun within it, and had not ended properly either.
    doubts: u32,
}

/// The next beginning of an element.
#[derive(Clone, Copy)]
enum Ahead {
    Unknown,
    At(usize),
    Nowhere,
}

impl Cutter<'_> {
    /// The element that starts here, up to its end or to where the next one begins.
    fn element(&mut self, at: usize) -> Range<usize> {
        if self.beginning.is_none() {
            let beginning = first_member(self.text, at).map(|(_, value)| slice(self.text, at..value));
            self.beginning = beginning.map(memmem::Finder::new);
        }
        let Some(next) = self.next(at) else { return at..self.end(at, self.text.len()) };
        let end = self.end(at, next);
        if end < next {
            return at..end;
        }
        // Either it is broken, or it holds objects that start as it does itself. Of many that are broken not each is
        // followed to the end of the message.
        if self.doubts < MOST_DOUBTS {
            let end = self.end(at, self.text.len());
            if is_json(slice(self.text, at..end)) {
                return at..end;
            }
            self.doubts += 1;
        }
        at..next
    }

    /// The end of the value at `at`, at most `limit`.
    fn end(&self, at: usize, limit: usize) -> usize {
        value_end(slice(self.text, 0..limit), at).clamp(at + 1, limit.max(at + 1))
    }

    /// Where something starts after a comma as the first object does.
    fn next(&mut self, at: usize) -> Option<usize> {
        let beginning = self.beginning.as_ref()?;
        match self.ahead {
            Ahead::At(next) if next > at => return Some(next),
            Ahead::Nowhere => return None,
            Ahead::At(_) | Ahead::Unknown => {}
        }
        let rest = slice(self.text, at + 1..self.text.len());
        let after_comma = |found: &usize| slice(rest, 0..*found).trim_ascii_end().last() == Some(&b',');
        let next = beginning.find_iter(rest).find(after_comma).map(|found| at + 1 + found);
        self.ahead = next.map_or(Ahead::Nowhere, Ahead::At);
        next
    }
}

/// An element that ends where the next begins, without the comma between them.
fn without_comma(bytes: &[u8], element: Range<usize>) -> Range<usize> {
    let text = slice(bytes, element.clone()).trim_ascii_end();
    let text = text.strip_suffix(b",").map_or(text, <[u8]>::trim_ascii_end);
    element.start..element.start + text.len()
}

/// Length of the brackets that close an envelope, with the space between and before them; 0 if it is cut short.
fn closing(whole: &[u8], bare: bool) -> usize {
    let inner = if bare { Some(whole) } else { whole.strip_suffix(b"}").map(<[u8]>::trim_ascii_end) };
    let inner = inner.and_then(|rest| rest.strip_suffix(b"]")).map(<[u8]>::trim_ascii_end);
    inner.map_or(0, |inner| whole.len() - inner.len())
}

/// The lines of a message that is not one JSON value, if at least one of them is.
fn lines(bytes: &[u8], whole: Range<usize>) -> Option<Vec<Range<usize>>> {
    let text = slice(bytes, whole.clone());
    memchr(b'\n', text)?;
    if is_json(text) {
        return None;
    }
    let mut found = Vec::new();
    let mut start = whole.start;
    for end in memchr_iter(b'\n', text).map(|at| whole.start + at).chain([whole.end]) {
        let line = trimmed(bytes, start..end);
        if !line.is_empty() {
            found.push(line);
        }
        start = end + 1;
    }
    found.iter().any(|line| is_json(slice(bytes, line.clone()))).then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::*;

    fn cut(message: &[u8]) -> Vec<String> {
        records(message).into_iter().map(|at| String::from_utf8_lossy(&message[at]).into_owned()).collect()
    }

    #[test]
    fn every_shape_of_a_message_is_known() {
        assert_eq!(cut(br#"{"records":[{"a":1},{"a":2}]}"#), [r#"{"a":1}"#, r#"{"a":2}"#]);
        assert_eq!(
            cut(b" {\n \"Records\" : [ {\"a\":1} ,\n {\"b\":[2]} ]\n}\n"),
            [r#"{"a":1}"#, r#"{"b":[2]}"#]
        );
        assert_eq!(cut(br#"[{"a":1},7]"#), [r#"{"a":1}"#, "7"]);
        assert_eq!(cut(b"\xef\xbb\xbf{\"a\":1}\r\n"), [r#"{"a":1}"#]);
        assert_eq!(cut(b"{\"a\":1}\r\n\n{\"a\":\n{\"a\":3}"), [r#"{"a":1}"#, "{\"a\":", r#"{"a":3}"#]);
        assert_eq!(cut(b"{\n \"a\": 1\n}"), ["{\n \"a\": 1\n}"], "one value on several lines");
        assert_eq!(cut(b"{\n \"a\": \n}"), ["{\n \"a\": \n}"], "one broken value on several lines");
        assert_eq!(cut(b"no json"), ["no json"]);
        assert!(cut(b" \r\n").is_empty() && cut(b"").is_empty());
    }

    #[test]
    fn an_envelope_that_is_more_or_less_than_its_records_is_left_to_the_decoder() {
        for message in
            [r#"{"records":[]}"#, "[]", r#"{"records":[{"a":1}],"more":2}"#, r#"{"a":1,"records":[{"b":2}]}"#]
        {
            assert_eq!(cut(message.as_bytes()), [message]);
        }
    }

    #[test]
    fn a_broken_record_takes_no_other_along() {
        let good = [r#"{"time":"t","x":"}]"}"#, r#"{"time":"u","y":[1,{"z":2}]}"#];
        let broken: [&[u8]; 8] = [
            br#"{"time": }"#,
            br#"{"time":"an end is missing}"#,
            br#"{"time":"t","x":[1,2}"#,
            br#"{"time":"t"}}"#,
            b"{\"time\":\"\xff\xfe\"}",
            br#"{"time":"t","x":{"#,
            br#"{"time":"a"b"c"}"#,
            br#"nonsense"#,
        ];
        for poison in broken {
            for place in 0..3 {
                let mut parts: Vec<&[u8]> = good.iter().map(|text| text.as_bytes()).collect();
                parts.insert(place, poison);
                for (open, close) in
                    [("{\"records\":[", "]}"), ("[", "]"), ("{\"records\" : [\n", "\n]\n}\n")]
                {
                    let message = [open.as_bytes(), &parts.join(&b","[..]), close.as_bytes()].concat();
                    let found = cut(&message);
                    let shown = String::from_utf8_lossy(&message);
                    if poison == b"nonsense" && place == 0 {
                        assert!(found.iter().any(|one| one == "nonsense"), "{shown}");
                    }
                    for record in good {
                        assert_eq!(
                            found.iter().filter(|one| *one == record).count(),
                            1,
                            "{shown}: {found:?}"
                        );
                    }
                    assert!(found.len() >= 3, "{shown}: {found:?}");
                }
            }
        }
    }

    /// Where each element was looked for anew in all that follows, this took a quarter of an hour.
    #[test]
    fn a_long_message_without_commas_is_cut_in_a_moment() {
        let message = format!("[{}]", r#"{"a":1} "#.repeat(300_000));
        assert_eq!(records(message.as_bytes()).len(), 300_000);
    }

    #[test]
    fn of_a_message_that_is_cut_short_all_whole_records_are_found() {
        let message = br#"{"records":[{"a":1},{"a":2},{"a":"x"#;
        assert_eq!(cut(message), [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":"x"#]);
    }

    proptest! {
        /// Whatever the records hold, an envelope that is JSON is cut into what serde_json finds in it.
        #[test]
        fn cutting_agrees_with_serde_json(
            texts in prop::collection::vec(any::<String>(), 1..6),
            pretty in any::<bool>(),
        ) {
            let elements: Vec<Value> = texts.iter().map(|text| json!({ "k": text, "n": [{ "k": text }] })).collect();
            let envelope = json!({ "records": elements });
            let message = if pretty { format!("{envelope:#}") } else { envelope.to_string() };
            let found: Vec<Value> =
                cut(message.as_bytes()).iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            prop_assert_eq!(found, elements);
        }

        /// Nothing is out of bounds and nothing overlaps, whatever the bytes.
        #[test]
        fn any_bytes_are_cut_in_order(message in prop::collection::vec(prop::sample::select(br#"{}[]",: ar1"#.to_vec()), 0..60)) {
            for prefix in [&b""[..], b"{\"records\":[", b"[{\"a\":"] {
                let message = [prefix, &message].concat();
                let mut end = 0;
                for record in records(&message) {
                    assert!(record.start >= end && record.start < record.end && record.end <= message.len());
                    end = record.end;
                }
            }
        }
    }
}
