//! What must hold of the bucket's parsers and of the tail, whatever the bytes: see `fuzzing`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use object_store::path::Path;
use serde_json::value::RawValue;

use super::azure::container_names;
use super::azure_path::{AzureLayout, Containers};
use super::decompress::Decompressor;
use super::layout::Layout;
use super::lines::{Cut, LineCutter, LongLine};
use super::notification;
use super::records::RecordCutter;
use crate::buffer::Pool;

mod rewritten;

pub use rewritten::{state, tail};

/// A record with its offset and line in the stream.
type Located = (u64, u64, Vec<u8>);

/// What a cutter makes of a stream.
#[derive(Debug, Default, PartialEq)]
struct Cuts {
    records: Vec<Located>,
    long: Vec<(u64, u64, u64)>,
}

impl Cuts {
    fn take(&mut self, cut: Option<Cut>, long: Vec<LongLine>) {
        if let Some(cut) = cut {
            for line in &cut.lines {
                let text = cut.text[line.start as usize..line.end as usize].to_vec();
                self.records.push((
                    cut.offset + u64::from(line.start),
                    cut.line + u64::from(line.number),
                    text,
                ));
            }
        }
        self.long.extend(long.into_iter().map(|long| (long.offset, long.line, long.bytes)));
    }
}

/// `data`: how the stream is cut into pieces, and the stream.
pub fn lines(data: &[u8]) {
    let Some((&[sizes, longest, often], stream)) = data.split_first_chunk() else { return };
    let longest = 1 + usize::from(longest);
    let mut sizes = fastrand::Rng::with_seed(u64::from(sizes));
    let mut pieces = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.usize(1..=rest.len().min(40)));
        pieces.push(piece);
        rest = after;
    }
    // A cut at every piece, at every third, or at the end only.
    let every = [1, 3, usize::MAX][usize::from(often % 3)];
    check_lines(stream, &pieces, every, longest);
    check_records(stream, &pieces, every, longest);
    decompress(stream, &pieces);
}

fn check_lines(stream: &[u8], pieces: &[&[u8]], every: usize, longest: usize) {
    let mut cutter = LineCutter::new(0, 0, longest, &Pool::default(), 64);
    let mut cuts = Cuts::default();
    for (number, piece) in pieces.iter().enumerate() {
        cutter.push(piece);
        if (number + 1) % every == 0 {
            let cut = cutter.cut();
            cuts.take(cut, cutter.take_long());
        }
    }
    let cut = cutter.finish();
    cuts.take(cut, cutter.take_long());
    assert_eq!(cutter.position().0, stream.len() as u64);
    // By the simplest means: a line is what stands between line ends.
    let (mut offset, mut found, mut long) = (0, cuts.records.iter(), cuts.long.iter().peekable());
    let all: Vec<_> = stream.split(|byte| *byte == b'\n').collect();
    for (number, line) in all.into_iter().enumerate() {
        let mark = if number == 0 && line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let content = line[mark..].trim_ascii();
        let lead = mark + line[mark..].len() - line[mark..].trim_ascii_start().len();
        let told = long.next_if(|(at, count, _)| {
            (*at == offset || *at == offset + mark as u64) && *count == number as u64
        });
        if let Some((_, _, bytes)) = told {
            assert!(line.len() > longest && *bytes <= line.len() as u64 && *bytes >= content.len() as u64);
        } else if !content.is_empty() {
            assert!(content.len() <= longest, "a long line is not told: {content:?}");
            assert_eq!(found.next(), Some(&(offset + lead as u64, number as u64, content.to_vec())));
        }
        offset += line.len() as u64 + 1;
    }
    assert_eq!((found.next(), long.next()), (None, None));
}

fn cut_records(pieces: &[&[u8]], every: usize, longest: usize) -> (Cuts, u64) {
    let mut cutter = RecordCutter::new(0, 0, longest);
    let mut cuts = Cuts::default();
    for (number, piece) in pieces.iter().enumerate() {
        cutter.push(piece);
        if (number + 1) % every == 0 {
            let cut = cutter.cut();
            cuts.take(cut, cutter.take_long());
        }
    }
    let cut = cutter.finish();
    cuts.take(cut, cutter.take_long());
    (cuts, cutter.position().0)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
}

fn check_records(stream: &[u8], pieces: &[&[u8]], every: usize, longest: usize) {
    let (cut, _) = cut_records(pieces, every, usize::MAX);
    let (whole, _) = cut_records(&[stream], 1, usize::MAX);
    assert_eq!(cut, whole, "{}", stream.escape_ascii());
    let mut end = 0;
    for (offset, line, text) in &whole.records {
        let at = usize::try_from(*offset).unwrap();
        assert!(at >= end);
        end = at + text.len();
        assert_eq!(&stream[at..end], text);
        assert_eq!(*line, stream[..at].iter().filter(|byte| **byte == b'\n').count() as u64);
    }
    if let Ok(Document { records }) = serde_json::from_slice(stream)
        && !records.is_empty()
        && records.iter().all(|record| record.get().starts_with('{'))
        // A name spelled with escapes is not the one Azure writes.
        && memchr::memmem::find(stream, b"\"records\"").is_some()
    {
        let found: Vec<_> = whole.records.iter().map(|(_, _, text)| text.as_slice()).collect();
        assert_eq!(found, records.iter().map(|record| record.get().as_bytes()).collect::<Vec<_>>());
    }
    let (short, position) = cut_records(pieces, every, longest);
    assert!(position <= stream.len() as u64);
    assert!(short.records.iter().all(|(_, _, text)| text.len() <= longest));
}

/// Broken compression is an error, and what came before it is the same however it came.
fn decompress(stored: &[u8], pieces: &[&[u8]]) {
    let text = |pieces: &[&[u8]]| {
        let mut text = Vec::new();
        let Ok(mut decompressor) = Decompressor::new(stored) else { return (text, false) };
        for piece in pieces {
            if decompressor.feed(piece, |part| text.extend_from_slice(part)).is_err() || text.len() > 1 << 20
            {
                return (text, false);
            }
        }
        let ended = decompressor.finish(|part| text.extend_from_slice(part)).is_ok();
        (text, ended)
    };
    let (cut, cut_ended) = text(pieces);
    let (whole, ended) = text(&[stored]);
    if ended && whole.len() <= 1 << 20 {
        assert_eq!((cut, cut_ended), (whole, true));
    }
}

/// What a queue, a listing and a path say.
pub fn listings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for created in notification::created(text).unwrap_or_default() {
        let _ = Path::parse(&created.key);
        assert!(!format!("{created:?}").is_empty());
    }
    let _ = container_names(text);
    let path = Path::from(text);
    let containers = |layout| Containers { layout, named: Vec::new() };
    for layout in [
        Layout::DatabricksDelivery {
            workspaces: Vec::new(),
            exclude_workspaces: Vec::new(),
            start_date: None,
        },
        Layout::Azure { containers: containers(AzureLayout::Diagnostic), start_date: None },
        Layout::Azure { containers: containers(AzureLayout::LogAnalytics), start_date: None },
        Layout::Any { glob: None },
    ] {
        if let Some(place) = layout.place(&Path::default(), &path) {
            let origin = Layout::origin(&path, &place, None);
            assert_eq!(serde_json::from_str::<String>(&origin.object_json).unwrap(), path.as_ref());
        }
    }
}
