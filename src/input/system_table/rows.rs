//! The rows of an answer: cut out of a JSON array as it comes, and written as the records that are shipped.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr2, memchr3};
use serde_json::value::RawValue;

use super::lanes::{digest, id_of};
use crate::json;
use crate::time::Millis;

/// The longest row that is read.
pub(super) const LONGEST_ROW: usize = 16 << 20;
/// What a dead letter keeps of a longer one.
const KEPT_OF_LONG: usize = 64 << 10;

/// The columns, and what is selected for each. Times as numbers, so that no session's time zone gets into them; nested
/// ones as JSON whatever the release of the server.
pub(super) const COLUMNS: [(&str, &str); 17] = [
    ("account_id", "account_id"),
    ("workspace_id", "workspace_id"),
    ("version", "version"),
    ("event_time", "unix_millis(event_time)"),
    ("event_date", "event_date"),
    ("source_ip_address", "source_ip_address"),
    ("user_agent", "user_agent"),
    ("session_id", "session_id"),
    ("user_identity", "to_json(user_identity)"),
    ("service_name", "service_name"),
    ("action_name", "action_name"),
    ("request_id", "request_id"),
    ("request_params", "to_json(request_params)"),
    ("response", "to_json(response)"),
    ("audit_level", "audit_level"),
    ("event_id", "event_id"),
    ("identity_metadata", "to_json(identity_metadata)"),
];

/// A row as it is shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) time: Millis,
    pub(super) id: u128,
    /// True for an event of the account: every region's table has it.
    pub(super) account_level: bool,
    /// A JSON object with the columns as members; of a row that is too long, its beginning as it came.
    pub(super) record: Vec<u8>,
    /// It is longer than a row may be.
    pub(super) too_long: bool,
}

impl Row {
    /// Reads `["…",null,…]`.
    ///
    /// # Errors
    /// A sentence if that is no row of [`COLUMNS`].
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let cells: Vec<&RawValue> =
            serde_json::from_slice(text).map_err(|error| format!("a row is no JSON array: {error}"))?;
        if cells.len() != COLUMNS.len() {
            return Err(format!("a row has {} columns in place of {}", cells.len(), COLUMNS.len()));
        }
        let (mut time, mut id, mut account_level) = (None, None, false);
        let mut record = Vec::with_capacity(text.len() + 300);
        let mut before = b'{';
        for ((name, _), cell) in COLUMNS.iter().zip(cells) {
            record.push(before);
            before = b',';
            json::write_quoted(name, &mut record);
            record.push(b':');
            let cell = cell.get();
            let is_text = json::kind(cell) == json::Kind::String;
            match *name {
                "event_time" => {
                    let millis = time_in(cell)?;
                    time = Some(millis);
                    record.push(b'"');
                    millis.write_rfc3339(&mut record);
                    record.push(b'"');
                    continue;
                }
                "event_id" if is_text => id = Some(id_of(&json::unescape(cell))),
                "workspace_id" | "audit_level" => {
                    account_level |= matches!(cell.trim_matches('"'), "0" | "ACCOUNT_LEVEL");
                }
                _ => {}
            }
            record.extend_from_slice(cell.as_bytes());
        }
        record.push(b'}');
        let time = time.ok_or("a row has no event_time")?;
        Ok(Self { time, id: id.unwrap_or_else(|| digest(&record)), account_level, record, too_long: false })
    }

    /// A row of which only the beginning is there: its time is among the first columns.
    ///
    /// # Errors
    /// A sentence if it is not.
    pub(super) fn too_long(beginning: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(beginning);
        let column = COLUMNS.iter().zip(json::elements(&text)).find(|((name, _), _)| *name == "event_time");
        let (_, cell) = column.ok_or("a row that is too long does not begin with its time")?;
        let (time, id, record) = (time_in(cell)?, digest(beginning), beginning.to_vec());
        Ok(Self { time, id, account_level: false, record, too_long: true })
    }
}

fn time_in(cell: &str) -> Result<Millis, String> {
    let is_text = json::kind(cell) == json::Kind::String;
    let millis = Millis::parse(&if is_text { json::unescape(cell) } else { cell.into() });
    millis.ok_or_else(|| format!("event_time is {cell:.60}"))
}

/// One element of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// A row's text.
    Row(Bytes),
    /// The beginning of a row that is longer than one may be.
    TooLong(Bytes),
}

/// Cuts the elements out of `[[…],[…]]`, which comes in pieces.
#[derive(Debug)]
pub(super) struct Splitter {
    buffer: BytesMut,
    /// What of the buffer was looked at; past its end after a backslash there.
    at: usize,
    depth: usize,
    in_string: bool,
    /// The beginning of the element that is being left out.
    long: Option<Bytes>,
    longest: usize,
}

impl Splitter {
    pub(super) fn new(longest: usize) -> Self {
        Self { buffer: BytesMut::new(), at: 0, depth: 0, in_string: false, long: None, longest }
    }

    /// Takes in the next piece.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// True between arrays: what was fed is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.depth == 0 && !self.in_string
    }

    /// The next element of what was fed.
    pub(super) fn next(&mut self) -> Option<Element> {
        while let Some(rest) = self.buffer.get(self.at..).filter(|rest| !rest.is_empty()) {
            if self.in_string {
                let found = memchr2(b'"', b'\\', rest);
                let Some(found) = found else {
                    self.at = self.buffer.len();
                    break;
                };
                self.in_string = rest.get(found) == Some(&b'\\');
                self.at += found + if self.in_string { 2 } else { 1 };
                continue;
            }
            let Some(found) = memchr3(b'"', b'[', b']', rest) else {
                self.at = self.buffer.len();
                break;
            };
            self.at += found + 1;
            match rest.get(found) {
                Some(b'"') => self.in_string = true,
                Some(b'[') => {
                    self.depth += 1;
                    if self.depth == 2 {
                        // What stands between rows is not needed.
                        self.buffer.advance(self.at - 1);
                        self.at = 1;
                    }
                }
                _ => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 1 {
                        let element = self.buffer.split_to(std::mem::take(&mut self.at)).freeze();
                        return Some(self.long.take().map_or(Element::Row(element), Element::TooLong));
                    }
                }
            }
        }
        self.shorten();
        None
    }

    /// Keeps the buffer bounded while an element does not end. What stands before one is not needed.
    fn shorten(&mut self) {
        let within = self.depth >= 2;
        if within && self.buffer.len() <= self.longest {
            return;
        }
        if within && self.long.is_none() {
            let kept = KEPT_OF_LONG.min(self.buffer.len());
            self.long = Some(Bytes::copy_from_slice(self.buffer.get(..kept).unwrap_or_default()));
        }
        let looked_at = self.at.min(self.buffer.len());
        self.buffer.advance(looked_at);
        self.at -= looked_at;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop, prop_assert_eq, proptest};

    use super::*;

    /// Rows with all that can confuse: quotes, backslashes, brackets in texts, nulls, nested arrays.
    fn rows() -> impl Strategy<Value = Vec<String>> {
        let cell = prop::sample::select(vec![
            "null",
            r#""""#,
            r#""plain""#,
            r#""[\"]\\""#,
            r#""\\\\""#,
            r#""]],[[""#,
            r#"[1,[2]]"#,
            r#""é\u005d\"""#,
        ]);
        let row = prop::collection::vec(cell, 0..5).prop_map(|cells| format!("[{}]", cells.join(",")));
        prop::collection::vec(row, 0..8)
    }

    proptest! {
        /// However the array is cut into pieces, the same rows come out of it.
        #[test]
        fn rows_do_not_depend_on_how_they_come(rows in rows(), sizes in prop::collection::vec(1usize..9, 1..20)) {
            let text = format!(" [ {} ]\n", rows.join(" ,\n"));
            let mut splitter = Splitter::new(LONGEST_ROW);
            let mut found = Vec::new();
            let mut rest = text.as_bytes();
            for size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                splitter.feed(piece);
                while let Some(element) = splitter.next() {
                    found.push(element);
                }
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(splitter.is_whole(), true);
            let expected: Vec<_> = rows.into_iter().map(|row| Element::Row(row.into())).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_row_without_end_takes_no_more_memory_than_a_row_may() {
        let mut splitter = Splitter::new(1000);
        splitter.feed(b"[[\"a\"],[\"");
        assert_eq!(splitter.next(), Some(Element::Row(Bytes::from_static(b"[\"a\"]"))));
        for _ in 0..1000 {
            splitter.feed(&[b'\\'; 101]);
            assert_eq!(splitter.next(), None);
            assert!(splitter.buffer.len() <= 1200);
        }
        splitter.feed(b"\"],[\"b\"]]");
        let Some(Element::TooLong(kept)) = splitter.next() else { panic!("it ends") };
        assert!(kept.starts_with(b"[\"\\\\"));
        assert_eq!(splitter.next(), Some(Element::Row(Bytes::from_static(b"[\"b\"]"))));
        assert_eq!((splitter.next(), splitter.is_whole()), (None, true));
    }

    #[test]
    fn what_is_no_array_takes_no_memory() {
        for noise in [&b"<html> not found </html>"[..], b"\"texts\"", b" \\ \\", b"[{\"a\":1},"] {
            let mut splitter = Splitter::new(1000);
            for _ in 0..1000 {
                splitter.feed(noise);
                while splitter.next().is_some() {}
                assert!(splitter.buffer.len() <= 1000, "{} bytes", splitter.buffer.len());
                if noise.starts_with(b"[") {
                    splitter.depth = 1;
                }
            }
        }
    }

    #[test]
    fn a_row_becomes_a_record_with_the_columns_as_members() {
        let cells = [
            r#""acc""#,
            r#""0""#,
            r#""2.0""#,
            r#""1767609296123""#,
            r#""2026-01-05""#,
            "null",
            r#""""#,
            "null",
            r#""{\"email\":\"a@b\"}""#,
            r#""accounts""#,
            r#""login""#,
            r#""r""#,
            r#""{\"a\":\"\\\"\"}""#,
            "null",
            r#""ACCOUNT_LEVEL""#,
            r#""5d1f0b6e-2c3d-3e4f-8a5b-6c7d8e9f0a1b""#,
            "null",
        ];
        let row = Row::parse(format!("[{}]", cells.join(", ")).as_bytes()).unwrap();
        assert_eq!(row.id, 0x5d1f_0b6e_2c3d_3e4f_8a5b_6c7d_8e9f_0a1b);
        assert!(row.account_level);
        let record: serde_json::Value = serde_json::from_slice(&row.record).unwrap();
        assert_eq!(record["event_time"], "2026-01-05T10:34:56.123Z");
        assert_eq!(record["request_params"], r#"{"a":"\""}"#);
        assert_eq!(record.as_object().unwrap().len(), COLUMNS.len());
        for wrong in ["[]", "{}", "[1", &format!("[{}]", cells.join(",").replace("1767609296123", "soon"))] {
            assert!(Row::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
