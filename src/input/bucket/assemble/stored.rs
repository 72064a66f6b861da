//! From the stored bytes of an object to its text: its first bytes tell whether it is compressed.

use std::io;

use bytes::Bytes;

use crate::chunk::Malformed;
use crate::input::bucket::decompress::{Decompressor, Expansion, MAGIC_BYTES};

/// Reason of the dead letter of an object whose compression is damaged.
const BROKEN: &str = "broken_compression";

/// How the stored bytes of one object are read.
#[derive(Default)]
pub(super) struct Stored {
    /// The first bytes, until they are enough to tell a compressed object.
    head: Vec<u8>,
    /// Chosen by the first bytes.
    decompressor: Option<Decompressor>,
    /// How far the object expands.
    expansion: Expansion,
    /// Why the object cannot be, or is not, decompressed any further: in one word and in a sentence.
    broken: Option<(&'static str, String)>,
}

impl Stored {
    /// Of an object that is known not to be compressed.
    pub(super) fn plain() -> Self {
        Self { decompressor: Some(Decompressor::Plain), ..Self::default() }
    }

    /// True once it is known whether the object is compressed.
    pub(super) fn is_told(&self) -> bool {
        self.decompressor.is_some()
    }

    /// Keeps first bytes; true if they are enough to tell by. A store may send less at first.
    pub(super) fn collect(&mut self, stored: &[u8]) -> bool {
        self.head.extend_from_slice(stored);
        self.head.len() >= MAGIC_BYTES
    }

    /// True if first bytes are kept, which have told nothing yet.
    pub(super) fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// Decides by the bytes that are kept, and gives them back to be fed.
    pub(super) fn tell(&mut self) -> io::Result<Vec<u8>> {
        self.decompressor = Some(Decompressor::new(&self.head)?);
        Ok(std::mem::take(&mut self.head))
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.decompressor.as_ref().is_some_and(|decompressor| !decompressor.is_plain())
    }

    /// Most bytes of a compressed object to feed at once.
    pub(super) fn step(&self) -> Option<usize> {
        self.decompressor.as_ref().filter(|_| self.is_compressed()).map(Decompressor::step)
    }

    /// Feeds stored bytes and hands over the text they give.
    pub(super) fn feed(&mut self, stored: &[u8], mut text: impl FnMut(&[u8])) {
        let Some(decompressor) = &mut self.decompressor else { return };
        if self.broken.is_some() {
            return;
        }
        let mut text_bytes = 0;
        let fed = decompressor.feed(stored, |part| {
            text_bytes += part.len();
            text(part);
        });
        let broken = fed.err().map(|error| (BROKEN, error.to_string()));
        self.broken = broken.or_else(|| match decompressor.is_plain() {
            true => None,
            false => {
                self.expansion.count(stored.len(), text_bytes).map(|error| ("decompression_bomb", error))
            }
        });
    }

    /// At the end of the object: hands over the rest of the text.
    pub(super) fn finish(&mut self, text: impl FnMut(&[u8])) {
        if let (Some(decompressor), None) = (&mut self.decompressor, &self.broken) {
            self.broken = decompressor.finish(text).err().map(|error| (BROKEN, error.to_string()));
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// The dead letter of what cannot be read any further, that once; behind this byte and line of the text.
    pub(super) fn take_broken(&mut self, offset: u64, line: u64) -> Option<Malformed> {
        let (reason, error) = self.broken.take()?;
        let detail =
            format!("the object is not decompressed any further: {error}; it is read again once it changes");
        Some(Malformed { record: Bytes::new(), reason, detail, offset, line })
    }
}
