//! What must hold of the system table's parsers, whatever the bytes: see `fuzzing`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use serde_json::Value;
use serde_json::value::RawValue;

use super::answer::Answer;
use super::lanes;
use super::rows::{Element, Row, Splitter};

/// What a workspace answers: the answer, and the rows in it, however they come.
pub fn answers(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(answer) = serde_json::from_str::<Answer<'_>>(text)
        && answer.result.as_ref().is_some_and(|part| part.data_array.is_none())
    {
        let links = answer.result.iter().flat_map(|part| part.external_links.iter().flatten());
        let told = format!("{:?}", answer.result);
        assert!(
            !links.map(|link| &link.external_link).any(|url| url.len() > 20 && told.contains(url.as_str()))
        );
    }
    let whole = elements(&[data]);
    let pieces: Vec<&[u8]> = data.chunks(3).collect();
    assert_eq!(elements(&pieces), whole);
    if let Ok(rows) = serde_json::from_slice::<Vec<Vec<&RawValue>>>(data) {
        assert_eq!(whole.len(), rows.len());
    }
    for element in whole {
        let Element::Row(text) = element else { continue };
        if let Ok(row) = Row::parse(&text) {
            let record: Value = serde_json::from_slice(&row.record).unwrap();
            assert_eq!(record.as_object().unwrap().len(), 17);
        }
    }
}

fn elements(pieces: &[&[u8]]) -> Vec<Element> {
    let mut splitter = Splitter::new(1 << 20);
    let mut found = Vec::new();
    for piece in pieces {
        splitter.feed(piece);
        while let Some(element) = splitter.next() {
            found.push(element);
        }
    }
    found
}

/// `data`: a position and notes, a NUL between them.
pub fn state(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let position = String::from_utf8_lossy(parts.next().unwrap_or_default());
    lanes::fuzzing(&position, parts.next().unwrap_or_default());
}
