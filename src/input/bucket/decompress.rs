//! Decompression of objects, piece by piece.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{DParameter, Decoder as RawDecoder, InBuffer, Operation, OutBuffer};

use crate::compress::Encoding;

/// Compressed bytes fed at once: bounds what one step can expand to (about 1,000 times) whatever the object holds.
const FEED_BYTES: usize = 2 << 10;
/// The same for zstd, which needs no more than four bytes for a block of 128 KiB.
const FEED_BYTES_ZSTD: usize = 64;

/// Most bytes of text for each stored one. Audit logs compress to a tenth, at most to a fiftieth.
const MOST_EXPANSION: u64 = 200;
/// Text that is never too much: what is small may repeat itself.
const FREE_EXPANSION_BYTES: u64 = 16 << 20;

/// How far an object expands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expansion {
    stored: u64,
    text: u64,
}

impl Expansion {
    /// Counts what was fed and what it gave; says so where that is more than any log.
    pub(super) fn count(&mut self, stored: usize, text: usize) -> Option<String> {
        self.stored += stored as u64;
        self.text += text as u64;
        let most = self.stored.saturating_mul(MOST_EXPANSION).max(FREE_EXPANSION_BYTES);
        (self.text > most).then(|| {
            format!("its first {} bytes expand to more than {MOST_EXPANSION} times their size", self.stored)
        })
    }
}

/// Most memory that a zstd object may ask for, as a power of two: 16 MiB. All levels but the "ultra" ones need less.
const MAX_WINDOW_LOG: u32 = 24;

/// Text that a zstd decoder hands over at once.
const TEXT_BYTES: usize = 64 << 10;

/// Bytes that tell every compression that is known.
pub(super) const MAGIC_BYTES: usize = 4;

/// Turns stored bytes into text.
#[allow(missing_debug_implementations)] // decoders have none
pub(super) enum Decompressor {
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zstd(Box<Zstd>),
}

/// The raw decoder and not `zstd`'s writer: that one ends in the middle of a frame without a word.
pub(super) struct Zstd {
    decoder: RawDecoder<'static>,
    /// A frame has begun and not ended.
    within_frame: bool,
    text: Vec<u8>,
}

impl Zstd {
    fn feed(&mut self, stored: &[u8], mut text: impl FnMut(&[u8])) -> io::Result<()> {
        let mut stored = InBuffer::around(stored);
        loop {
            let mut out = OutBuffer::around(self.text.as_mut_slice());
            let before = stored.pos();
            let wanted = self.decoder.run(&mut stored, &mut out)?;
            // A run that has nothing to do asks for the next frame, where the last text filled the buffer just so.
            if out.pos() > 0 || stored.pos() > before {
                self.within_frame = wanted > 0;
            }
            let full = out.pos() == out.capacity();
            text(out.as_slice());
            if !full && stored.pos() == stored.src.len() {
                return Ok(());
            }
        }
    }
}

impl Decompressor {
    /// For an object that begins with these bytes.
    pub(super) fn new(head: &[u8]) -> io::Result<Self> {
        Ok(match Encoding::sniff(head) {
            // zlib has no magic bytes: nothing is recognised as such.
            Encoding::None | Encoding::Deflate => Self::Plain,
            Encoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Encoding::Zstd => {
                let mut decoder = RawDecoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
                Self::Zstd(Box::new(Zstd { decoder, within_frame: false, text: vec![0; TEXT_BYTES] }))
            }
        })
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Most stored bytes to feed at once.
    pub(super) fn step(&self) -> usize {
        match self {
            Self::Plain => usize::MAX,
            Self::Gzip(_) => FEED_BYTES,
            Self::Zstd(_) => FEED_BYTES_ZSTD,
        }
    }

    /// Feeds stored bytes, at most a [`step`](Self::step) of them; hands over the text they give.
    pub(super) fn feed(&mut self, stored: &[u8], mut text: impl FnMut(&[u8])) -> io::Result<()> {
        match self {
            Self::Plain => text(stored),
            Self::Gzip(decoder) => {
                // What comes before an error is text all the same.
                let written = decoder.write_all(stored);
                text(decoder.get_ref());
                decoder.get_mut().clear();
                written?;
            }
            Self::Zstd(zstd) => zstd.feed(stored, text)?,
        }
        Ok(())
    }

    /// At the end of the object: the rest of the text; fails if the object is cut short.
    pub(super) fn finish(&mut self, mut text: impl FnMut(&[u8])) -> io::Result<()> {
        match self {
            Self::Plain => {}
            Self::Gzip(decoder) => {
                decoder.try_finish()?;
                text(decoder.get_ref());
                decoder.get_mut().clear();
            }
            Self::Zstd(zstd) if zstd.within_frame => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the last zstd frame is incomplete",
                ));
            }
            Self::Zstd(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Pool;

    #[test]
    fn compressed_objects_are_recognised_by_their_first_bytes_and_read_piece_by_piece() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for encoding in [Encoding::None, Encoding::Gzip, Encoding::Zstd] {
            let stored = encoding.compress(&[&text], &Pool::default()).unwrap();
            let mut decompressor = Decompressor::new(&stored).unwrap();
            let mut read = Vec::new();
            for piece in stored.chunks(777) {
                decompressor.feed(piece, |text| read.extend_from_slice(text)).unwrap();
            }
            decompressor.finish(|text| read.extend_from_slice(text)).unwrap();
            assert!(read == text, "{encoding:?}");
            assert_eq!(decompressor.is_plain(), encoding == Encoding::None);
        }
    }

    #[test]
    fn a_compressed_object_that_is_cut_short_is_an_error() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let stored = encoding.compress(&[b"some text that is long enough"], &Pool::default()).unwrap();
            let mut decompressor = Decompressor::new(&stored).unwrap();
            let fed = decompressor.feed(&stored[..stored.len() - 6], |_| {});
            assert!(fed.is_err() || decompressor.finish(|_| {}).is_err(), "{encoding:?}");
        }
    }

    #[test]
    fn a_compressed_object_may_fill_the_last_buffer_exactly() {
        let line = b"{\"action\":\"login\"}\n";
        for bytes in [TEXT_BYTES - 1, TEXT_BYTES, TEXT_BYTES + 1, 2 * TEXT_BYTES, 4 * TEXT_BYTES] {
            let text: Vec<u8> = line.iter().copied().cycle().take(bytes).collect();
            let mut checked = zstd::bulk::Compressor::new(1).unwrap();
            checked.include_checksum(true).unwrap();
            let gzip = Encoding::Gzip.compress(&[&text], &Pool::default()).unwrap();
            let zstd = Encoding::Zstd.compress(&[&text], &Pool::default()).unwrap();
            for stored in [gzip.to_vec(), zstd.to_vec(), checked.compress(&text).unwrap()] {
                // As a whole, in steps, and twice in a row.
                for (stored, times) in [(stored.clone(), 1), (stored.repeat(2), 2)] {
                    for step in [1, FEED_BYTES_ZSTD, usize::MAX] {
                        let mut decompressor = Decompressor::new(&stored).unwrap();
                        let mut read = Vec::new();
                        for piece in stored.chunks(step) {
                            decompressor.feed(piece, |text| read.extend_from_slice(text)).unwrap();
                        }
                        decompressor.finish(|text| read.extend_from_slice(text)).unwrap();
                        assert!(read == text.repeat(times), "{bytes} bytes in steps of {step}");
                    }
                }
                let mut decompressor = Decompressor::new(&stored).unwrap();
                let fed = decompressor.feed(&stored[..stored.len() - 1], |_| {});
                assert!(fed.is_err() || decompressor.finish(|_| {}).is_err(), "cut short");
            }
        }
    }

    #[test]
    fn several_compressed_streams_in_one_object_are_one_text() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let stored = [b"one\n".as_slice(), b"two\n"]
                .map(|text| encoding.compress(&[text], &Pool::default()).unwrap())
                .concat();
            let mut decompressor = Decompressor::new(&stored).unwrap();
            let mut read = Vec::new();
            for piece in stored.chunks(3) {
                decompressor.feed(piece, |text| read.extend_from_slice(text)).unwrap();
            }
            decompressor.finish(|text| read.extend_from_slice(text)).unwrap();
            assert_eq!(read, b"one\ntwo\n", "{encoding:?}");
        }
    }
}
