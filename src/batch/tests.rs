use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};

use super::*;
use crate::buffer::Pool;

/// Frames of one chunk, and their bytes.
fn frames(sequence: u64, texts: &[impl AsRef<[u8]>], terminator: &[u8]) -> (Arc<Frames>, Bytes) {
    let mut encoded = Vec::new();
    let mut frames = Vec::new();
    for text in texts {
        encoded.extend_from_slice(text.as_ref());
        encoded.extend_from_slice(terminator);
        let end = u32::try_from(encoded.len()).unwrap();
        let kind = text.as_ref().first().map_or(0, |byte| u64::from(byte % 3));
        frames.push(Frame { end, kind, ..Frame::default() });
    }
    let records = KeptRecords::default();
    (Arc::new(Frames { sequence: Sequence(sequence), records, frames }), encoded.into())
}

fn batch() -> Batch {
    let mut batch = Batch::default();
    let (chunk, encoded) = frames(1, &["a", "bb", "ccc"], b",");
    batch.push(&chunk, &encoded, 1..3);
    let (chunk, encoded) = frames(2, &["d", "e"], b",");
    batch.push(&chunk, &encoded, 0..2);
    batch
}

fn text(batch: &Batch) -> String {
    String::from_utf8(batch.body(b"", Framing::ARRAY).concat()).unwrap()
}

#[test]
fn a_body_is_its_frames_between_open_and_close() {
    assert_eq!(text(&batch()), "[bb,ccc,d,e]");
    assert_eq!(text(&Batch::default()), "[]");
    assert_eq!((batch().events(), batch().bytes()), (4, 11));
    assert_eq!(batch().body(b"{\"x\":", Framing::ARRAY).concat(), b"{\"x\":[bb,ccc,d,e]");
}

#[test]
fn halves_are_in_order_and_complete() {
    let (first, second) = batch().halves();
    assert_eq!((text(&first).as_str(), text(&second).as_str()), ("[bb,ccc]", "[d,e]"));
}

#[test]
fn events_of_one_kind_stand_side_by_side_over_chunks() {
    let mut batch = Batch::default();
    let (chunk, encoded) = frames(1, &["a1", "b1", "c1", "a2"], b",");
    batch.push(&chunk, &encoded, 0..4);
    let (chunk, encoded) = frames(2, &["b2", "a3"], b",");
    batch.push(&chunk, &encoded, 0..2);
    assert_eq!(text(&batch.grouped()), "[c1,a1,a2,a3,b1,b2]");
}

/// Each event's chunk, number and bytes.
fn each(batch: &Batch) -> Vec<(u64, u64, usize, Vec<u8>)> {
    let mut each = Vec::new();
    for (index, (frames, at)) in batch.manifest().each().enumerate() {
        let one = batch.select(|wanted| wanted == index);
        let bytes = one.body(b"", Framing::CONCATENATED).concat();
        each.push((frames.frames[at].kind, frames.sequence.0, at, bytes));
    }
    each
}

#[test]
fn a_body_that_is_too_short_gives_no_batch() {
    let body = batch().body(b"", Framing::ARRAY).concat();
    assert!(batch().manifest().recall(body[2..].to_vec(), Framing::ARRAY).is_none());
    assert!(batch().manifest().recall(Vec::new(), Framing::ARRAY).is_none());
}

/// A batch of runs of several chunks' frames, as they are, empty ones among them, and their framing.
fn framed() -> impl Strategy<Value = (Batch, Framing)> {
    let framings = [
        Framing::CONCATENATED,
        Framing::LINES,
        Framing::ARRAY,
        Framing { open: b"<<", terminator: b"", close: b">", keep_last: false },
        Framing { open: b"", terminator: b"--", close: b"", keep_last: true },
    ];
    let texts = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6);
    let chunks = prop::collection::vec((texts, 0usize..7, 0usize..7), 0..5);
    (chunks, prop::sample::select(framings.to_vec())).prop_map(|(chunks, framing)| {
        let mut batch = Batch::default();
        for (sequence, (texts, one, other)) in (0..).zip(&chunks) {
            let (frames, encoded) = frames(sequence, texts, framing.terminator);
            let range = (*one).min(*other).min(texts.len())..(*one).max(*other).min(texts.len());
            batch.push(&frames, &encoded, range);
        }
        (batch, framing)
    })
}

proptest! {
    /// Selecting keeps the wanted events, in their order, and counts them.
    #[test]
    fn a_selection_is_what_was_wanted(wanted in prop::collection::vec(any::<bool>(), 4)) {
        let selected = batch().select(|index| wanted[index]);
        let expected: Vec<_> = ["bb", "ccc", "d", "e"].into_iter().zip(&wanted).filter(|(_, keep)| **keep).map(|(frame, _)| frame).collect();
        prop_assert_eq!(selected.events(), expected.len());
        prop_assert_eq!(text(&selected), format!("[{}]", expected.join(",")));
        let indexes = |manifest: &Manifest| manifest.each().map(|(frames, index)| (frames.sequence, index)).collect::<Vec<_>>();
        let without_bytes = batch().manifest().select(|index| wanted[index]);
        prop_assert_eq!(indexes(&without_bytes), indexes(selected.manifest()));
        prop_assert_eq!((without_bytes.events(), without_bytes.bytes()), (selected.events(), selected.bytes()));
    }

    /// Grouped, each event keeps its bytes and its record, and the events of a kind their order.
    #[test]
    fn a_grouped_batch_is_the_same_events_by_kind((batch, _) in framed()) {
        let mut expected = each(&batch);
        expected.sort();
        let grouped = batch.clone().grouped();
        prop_assert_eq!((grouped.events(), grouped.bytes()), (batch.events(), batch.bytes()));
        prop_assert_eq!(each(&grouped), expected);
    }

    /// From its request's body a batch comes back byte for byte, and any selection of it, whatever stands before and
    /// behind the frames and however the body is compressed.
    #[test]
    fn a_batch_comes_back_from_its_body(
        (batch, framing) in framed(), grouped in any::<bool>(), envelope in prop::collection::vec(any::<u8>(), 0..9),
        encoding in prop::sample::select(Encoding::ALL.to_vec()), wanted in prop::collection::vec(any::<bool>(), 25),
    ) {
        let batch = if grouped { batch.grouped() } else { batch };
        let slices = batch.body(&envelope, framing);
        let whole = slices.concat();
        let body = encoding.compress(&slices, &Pool::default()).unwrap();
        let manifest = batch.clone().into_manifest();
        let again = manifest.recall(encoding.decompress(&body, whole.len()).unwrap(), framing).unwrap();
        prop_assert_eq!(again.body(&envelope, framing).concat(), whole);
        let (some, expected) = (again.select(|index| wanted[index]), batch.select(|index| wanted[index]));
        prop_assert_eq!(some.body(b"", framing).concat(), expected.body(b"", framing).concat());
    }
}
