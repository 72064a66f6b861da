use proptest::prelude::{prop, prop_assert_eq, proptest};
use serde_json::{Value, json};

use super::*;

fn texts(cut: &Cut) -> Vec<String> {
    let text = |line: &Line| &cut.text[line.start as usize..line.end as usize];
    cut.lines.iter().map(|line| String::from_utf8_lossy(text(line)).into_owned()).collect()
}

fn cut(text: &str) -> (Vec<String>, u64) {
    let mut cutter = RecordCutter::new(0, 0, 1000);
    cutter.push(text.as_bytes());
    let cut = cutter.finish();
    (cut.iter().flat_map(texts).collect(), cutter.position().0)
}

#[test]
fn other_text_is_passed_over_nowhere_and_cut_alike_in_pieces() {
    for (text, expected) in
        [("{]ta\"o", ["{]", "ta\"o"].as_slice()), ("ab", &["ab"]), ("\u{feff}{}x", &["{}", "x"])]
    {
        assert_eq!(cut(text).0, expected);
        let mut cutter = RecordCutter::new(0, 0, 1000);
        let mut found = Vec::new();
        for byte in text.as_bytes() {
            cutter.push(&[*byte]);
            found.extend(cutter.cut().iter().flat_map(texts));
        }
        found.extend(cutter.finish().iter().flat_map(texts));
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn a_document_is_told_by_its_beginning() {
    for text in ["{\"records\":[", "\u{feff}{\r\n  \"records\" : [ {"] {
        assert!(begins_document(text.as_bytes()), "{text}");
    }
    for text in ["{\"records\":", "{\"records\":{", "{\"resourceId\":\"/a\"}", "[", ""] {
        assert!(!begins_document(text.as_bytes()), "{text}");
    }
}

#[test]
fn records_are_cut_however_they_are_printed_and_the_end_of_the_document_is_no_part_of_the_position() {
    let pretty =
        "{\n  \"records\": [\n    {\n      \"a\": \"]}{\\\"\",\n      \"b\": [{}]\n    },\n    {}\n  ]\n}\n";
    let (records, position) = cut(pretty);
    assert_eq!(records, ["{\n      \"a\": \"]}{\\\"\",\n      \"b\": [{}]\n    }", "{}"]);
    assert_eq!(&pretty[usize::try_from(position).unwrap()..], "\n  ]\n}\n");
    assert_eq!(cut("{\"records\":[]}"), (Vec::new(), 0));
}

#[test]
fn a_document_that_has_grown_goes_on_behind_its_last_record() {
    let mut cutter = RecordCutter::new(17, 1, 1000);
    cutter.push(b",\n{\"b\":1}]}\n{\"records\":[{\"c\":1}");
    let found = cutter.cut().unwrap();
    assert_eq!(
        (texts(&found), found.offset, found.line),
        (vec!["{\"b\":1}".to_owned(), "{\"c\":1}".to_owned()], 17, 1)
    );
    assert_eq!(found.lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2]);
    assert!(cutter.unterminated().is_none());
}

#[test]
fn what_is_no_document_of_records_is_not_passed_over() {
    let text =
        "{\"records\":[{\"a\":1}]}\n{\"b\":[{}],\"c\":{}}\nno json {\n{\"records\":[1,{\"d\":1}],\"e\":2}";
    let (records, _) = cut(text);
    assert_eq!(records, ["{\"a\":1}", "{\"b\":[{}],\"c\":{}}", "no json {", "{\"d\":1}"]);
}

#[test]
fn a_record_that_has_not_ended_waits_and_is_taken_at_last() {
    let mut cutter = RecordCutter::new(0, 0, 1000);
    cutter.push(b"{\"records\":[{\"a\":1},{\"b\":");
    assert_eq!(cutter.unterminated(), Some(b"{\"b\":".as_slice()));
    assert_eq!(texts(&cutter.cut().unwrap()), ["{\"a\":1}"]);
    assert_eq!(texts(&cutter.finish().unwrap()), ["{\"b\":"]);
}

#[test]
fn a_record_over_the_cap_is_reported_and_the_rest_goes_on() {
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(3000));
    for piece in [1, 700, 10_000] {
        let text = format!("{{\"records\":[{{\"a\":1}},\n{long},{{\"b\":1}}]}}");
        let mut cutter = RecordCutter::new(0, 0, 1000);
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            cutter.push(piece);
            found.extend(cutter.cut().iter().flat_map(texts));
            assert!(cutter.buffered() < 12_000);
        }
        found.extend(cutter.finish().iter().flat_map(texts));
        assert_eq!(found, ["{\"a\":1}", "{\"b\":1}"], "{piece}");
        let reported = cutter.take_long();
        let reported: Vec<_> = reported.iter().map(|long| (long.bytes, long.offset, long.line)).collect();
        assert_eq!(reported, [(long.len() as u64, 21, 1)], "{piece}");
    }
}

#[test]
fn blanks_without_end_are_not_kept() {
    let mut cutter = RecordCutter::new(0, 0, 1000);
    cutter.push(b"{\"records\":[{\"a\":1}");
    cutter.cut();
    for _ in 0..100 {
        cutter.push(&[b' '; 4096]);
        cutter.cut();
        assert!(cutter.buffered() < 100_000);
    }
    cutter.push(b",{\"b\":1}]}");
    assert_eq!(texts(&cutter.cut().unwrap()), ["{\"b\":1}"]);
}

#[test]
fn a_cut_takes_so_many_records_and_the_rest_stays_for_the_next() {
    let mut cutter = RecordCutter::new(0, 0, 1000);
    cutter.push(format!("{{\"records\":[{}{{\"a\":1}}]}}", "{},".repeat(2 * MOST_LINES)).as_bytes());
    let mut cuts = Vec::new();
    while cutter.is_crowded() {
        cuts.extend(cutter.cut());
    }
    cuts.extend(cutter.finish());
    assert_eq!(cuts.iter().map(|cut| cut.lines.len()).collect::<Vec<_>>(), [MOST_LINES, MOST_LINES, 1]);
    assert!(cuts[..2].iter().flat_map(texts).all(|text| text == "{}"));
    assert_eq!((texts(&cuts[2]), cutter.position().0), (vec!["{\"a\":1}".to_owned()], cuts[2].offset + 8));
}

#[test]
fn a_last_record_without_its_end_is_cut_however_many_records_come_before_it() {
    for whole in [MOST_LINES - 1, MOST_LINES, MOST_LINES + 1, 2 * MOST_LINES, 2 * MOST_LINES + 1] {
        // A record that was broken off, other text, an object that is a record as a whole.
        for (between, tail) in [("", "{\"a\":"), ("]}\n", "no json"), ("]}\n", "{\"b\"")] {
            let mut cutter = RecordCutter::new(0, 0, 1000);
            cutter.push(format!("{{\"records\":[{}{between}{tail}", "{},".repeat(whole)).as_bytes());
            let mut cuts = Vec::new();
            while cutter.is_crowded() {
                cuts.extend(cutter.cut());
            }
            cuts.extend(cutter.finish());
            assert!(cuts.iter().all(|cut| cut.lines.len() <= MOST_LINES));
            let records: Vec<_> = cuts.iter().flat_map(texts).collect();
            assert_eq!(
                (records.len(), records.last().map(String::as_str)),
                (whole + 1, Some(tail)),
                "{whole}"
            );
        }
    }
}

proptest! {
    /// Nothing is left behind and no cut takes too many, wherever the document breaks off and however few records a cut
    /// takes.
    #[test]
    fn all_records_are_cut_so_many_at_a_time(
        count in 0usize..20, most in 1usize..6, cut_off in 0usize..40, piece in 1usize..60, stray in prop::bool::ANY,
    ) {
        let mut text = format!("{{\"records\":[{}]}}", vec!["{\"a\":1}"; count].join(","));
        text.truncate(text.len().saturating_sub(cut_off));
        if stray {
            text.push_str("\nno json");
        }
        let cut = |most: usize, piece: usize| {
            let mut cutter = RecordCutter::new(0, 0, 1000).with_most_records(most);
            let mut cuts = Vec::new();
            for piece in text.as_bytes().chunks(piece) {
                cutter.push(piece);
                while cutter.is_crowded() {
                    cuts.extend(cutter.cut());
                }
            }
            cuts.extend(cutter.finish());
            let within = cuts.iter().all(|cut| cut.lines.len() <= most);
            (cuts.iter().flat_map(texts).collect::<Vec<_>>(), within, cutter.unterminated().is_some())
        };
        let (records, within, left) = cut(most, piece);
        prop_assert_eq!((records, within, left), (cut(1000, 10_000).0, true, false));
    }

    /// The records are those that a parser finds, whatever the pieces, and each goes on where the last cut was.
    #[test]
    fn records_do_not_depend_on_the_pieces(
        values in prop::collection::vec("[a-c\"\\\\\\[\\]{},: \n]{0,12}", 0..12),
        pretty in prop::bool::ANY,
        pieces in prop::collection::vec(1usize..40, 1..20),
    ) {
        let records: Vec<Value> =
            values.iter().map(|text| json!({ "t": text, "n": { "records": [{ "x": text }] } })).collect();
        let document = json!({ "records": records });
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
        let text = text.unwrap();
        let mut cutter = RecordCutter::new(0, 0, 10_000);
        let (mut found, mut rest) = (Vec::new(), text.as_bytes());
        for length in pieces.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            cutter.push(piece);
            rest = after;
            if let Some(cut) = cutter.cut() {
                found.extend(texts(&cut));
                let (offset, line) = cutter.position();
                if offset % 2 == 0 {
                    // As if the reader had stopped here and taken it up again.
                    let consumed = usize::try_from(offset).unwrap();
                    let fed = text.len() - rest.len();
                    cutter = RecordCutter::new(offset, line, 10_000);
                    cutter.push(&text.as_bytes()[consumed..fed]);
                }
            }
        }
        found.extend(cutter.finish().iter().flat_map(texts));
        let found: Vec<Value> = found.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        prop_assert_eq!(found, records);
    }
}
