//! The rows of a result, chunk after chunk, wherever they lie.

use bytes::{Buf, Bytes};

use super::rows::{Element, LONGEST_ROW, Splitter};
use super::warehouse::Warehouse;
use crate::budget::Credit;
use crate::http::Pieces;
use crate::input::InputError;

/// Bytes of an answer in memory that are looked at at once.
const PIECE: usize = 64 << 10;

/// Where the rows of one chunk come from.
#[derive(Debug)]
pub(super) enum Source {
    /// An array in memory; empty for no rows at all.
    Text(Bytes),
    /// A file in cloud storage.
    Pieces(Pieces),
}

impl Source {
    /// Bytes of it that are in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Pieces(_) => PIECE,
        }
    }
}

/// The result of a statement, read row by row.
#[derive(Debug)]
pub(super) struct Chunks {
    statement: String,
    source: Source,
    next: Option<u64>,
    splitter: Splitter,
    /// Rows the result has, and rows read of it.
    expected: Option<u64>,
    rows: u64,
    bytes: u64,
    _credit: Credit,
}

impl Chunks {
    /// The result of a statement, whose first chunk comes from `source`.
    pub(super) fn new(
        statement: String,
        source: Source,
        next: Option<u64>,
        expected: Option<u64>,
        credit: Credit,
    ) -> Self {
        let splitter = Splitter::new(LONGEST_ROW);
        Self { statement, source, next, splitter, expected, rows: 0, bytes: 0, _credit: credit }
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next row; none after the last.
    ///
    /// # Errors
    /// [`InputError`] if the result breaks off; what was read before is true all the same.
    pub(super) async fn next(&mut self, warehouse: &Warehouse) -> Result<Option<Element>, InputError> {
        loop {
            if let Some(element) = self.splitter.next() {
                self.rows += 1;
                return Ok(Some(element));
            }
            let piece = match &mut self.source {
                Source::Text(text) => {
                    let piece = text.slice(..PIECE.min(text.len()));
                    text.advance(piece.len());
                    (!piece.is_empty()).then_some(piece)
                }
                Source::Pieces(pieces) => {
                    let piece = pieces.next().await;
                    piece.map_err(|failure| {
                        warehouse.transient(format!("the result broke off: {}", failure.cause))
                    })?
                }
            };
            if let Some(piece) = piece {
                self.bytes += piece.len() as u64;
                self.splitter.feed(&piece);
                continue;
            }
            if !self.splitter.is_whole() {
                return Err(warehouse.transient("the result broke off in a row".to_owned()));
            }
            match self.next.take() {
                Some(index) => (self.source, self.next) = warehouse.chunk(&self.statement, index).await?,
                None => break,
            }
        }
        // A watermark that passed missing rows would lose them.
        match self.expected {
            Some(expected) if expected != self.rows => {
                let text = format!("the result has {} of its {expected} rows", self.rows);
                Err(warehouse.transient(text))
            }
            _ => Ok(None),
        }
    }
}
