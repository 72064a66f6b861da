//! Compression of request bodies, and recognition of compressed objects.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use libdeflater::{CompressionError, CompressionLvl, Compressor, Decompressor};
use serde::{Deserialize, Serialize};
use zstd::zstd_safe;

use crate::buffer::{Buffer, Pool};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    #[default]
    Gzip,
    /// zlib (RFC 1950), as HTTP calls it.
    Deflate,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// libdeflate's level 1 leaves 14 % of audit lines at 380 MB per CPU-second. Measured and rejected: its level 2 (240 MB,
/// 13.5 %) and zlib-rs at 1 (550 MB, 19.5 %), 2 (330 MB, 14.6 %), 3 (270 MB, 13.5 %) and 6 (180 MB, 11.6 %).
const GZIP_LEVEL: i32 = 1;
const ZSTD_LEVEL: i32 = 1;

/// A compressor is used again: its tables are some hundred kilobytes, which fresh from the system cost a page fault every
/// 4 KiB. There are as many as compress at once; one for each thread would be more.
static GZIP: Idle<Compressor> = Idle(Mutex::new(Vec::new()));
static ZSTD: Idle<zstd::bulk::Compressor<'static>> = Idle(Mutex::new(Vec::new()));

/// Compressors that nobody uses at the moment.
struct Idle<C>(Mutex<Vec<C>>);

impl<C> Idle<C> {
    /// Does something with one of them, or with a new one.
    fn with<T>(
        &self,
        new: impl FnOnce() -> io::Result<C>,
        act: impl FnOnce(&mut C) -> io::Result<T>,
    ) -> io::Result<T> {
        let idle = self.lock().pop();
        let mut compressor = idle.map_or_else(new, Ok)?;
        let done = act(&mut compressor);
        self.lock().push(compressor);
        done
    }

    fn lock(&self) -> MutexGuard<'_, Vec<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Deflate, Self::Zstd];

    /// The `Content-Encoding` header; none for an uncompressed body.
    pub fn header(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// Whether it leaves less where what is alike stands side by side. Zstandard finds repeats in the whole of a body:
    /// sorting costs more time than it saves.
    pub fn gains_by_order(self) -> bool {
        matches!(self, Self::Gzip | Self::Deflate)
    }

    /// Compresses a body given in slices, in buffers of the pool.
    ///
    /// # Errors
    /// Only what the compressor reports when it cannot set itself up; memory is the sole thing it writes to.
    pub fn compress(self, slices: &[&[u8]], pool: &Pool) -> io::Result<Bytes> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        // A quarter is ample for audit lines.
        let mut compressed = pool.take(total / 4 + 64);
        if self == Self::None {
            return Ok(joined(slices, total, pool).freeze());
        }
        // In one go, which is what makes libdeflate and zstd fast: a body is in memory as a whole anyway.
        let copy;
        let whole = match slices.iter().find(|slice| slice.len() == total) {
            Some(whole) => whole,
            None => {
                copy = joined(slices, total, pool);
                copy.as_ref()
            }
        };
        match self {
            Self::Zstd => ZSTD.with(
                || zstd::bulk::Compressor::new(ZSTD_LEVEL),
                |compressor| zstd(compressor, whole, &mut compressed),
            )?,
            _ => GZIP.with(
                || Ok(Compressor::new(CompressionLvl::new(GZIP_LEVEL).unwrap_or_default())),
                |compressor| self.deflate(compressor, whole, &mut compressed),
            )?,
        }
        Ok(compressed.freeze())
    }

    fn deflate(self, compressor: &mut Compressor, body: &[u8], compressed: &mut Vec<u8>) -> io::Result<()> {
        let compress = |compressor: &mut Compressor, compressed: &mut [u8]| match self {
            Self::Deflate => compressor.zlib_compress(body, compressed),
            Self::None | Self::Gzip | Self::Zstd => compressor.gzip_compress(body, compressed),
        };
        compressed.resize(compressed.capacity(), 0);
        let length = match compress(compressor, compressed) {
            // A body that hardly shrinks is compressed a second time. Of the two, gzip's frame is the longer one.
            Err(CompressionError::InsufficientSpace) => {
                compressed.resize(compressor.gzip_compress_bound(body.len()), 0);
                compress(compressor, compressed)
            }
            length => length,
        };
        compressed.truncate(length.map_err(io::Error::other)?);
        Ok(())
    }

    /// Takes back what was compressed: exactly so many bytes.
    ///
    /// # Errors
    /// The body is not what these bytes were compressed to.
    pub fn decompress(self, body: &[u8], bytes: usize) -> io::Result<Vec<u8>> {
        let mut text = vec![0; bytes];
        let length = match self {
            Self::None => return if body.len() == bytes { Ok(body.to_vec()) } else { Err(another_length()) },
            Self::Gzip => Decompressor::new().gzip_decompress(body, &mut text).map_err(io::Error::other)?,
            Self::Deflate => {
                Decompressor::new().zlib_decompress(body, &mut text).map_err(io::Error::other)?
            }
            Self::Zstd => zstd::bulk::decompress_to_buffer(body, &mut text)?,
        };
        if length == bytes { Ok(text) } else { Err(another_length()) }
    }

    /// What the first bytes of an object say it is; file names are not trusted.
    pub fn sniff(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

fn zstd(
    compressor: &mut zstd::bulk::Compressor<'static>,
    body: &[u8],
    compressed: &mut Vec<u8>,
) -> io::Result<()> {
    if compressor.compress_to_buffer(body, compressed).is_ok() {
        return Ok(());
    }
    // A body that hardly shrinks is compressed a second time; room is the one thing that can have been wanting.
    compressed.clear();
    compressed.reserve(zstd_safe::compress_bound(body.len()));
    compressor.compress_to_buffer(body, compressed).map(drop)
}

fn another_length() -> io::Error {
    io::Error::other("it is of another length than what was compressed")
}

fn joined(slices: &[&[u8]], total: usize, pool: &Pool) -> Buffer {
    let mut body = pool.take(total);
    for slice in slices {
        body.extend_from_slice(slice);
    }
    body
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::generate::{Bucket, Options};
    use crate::time::Date;

    fn gunzip(body: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(body).read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn slices_are_compressed_as_one_body() {
        let slices: [&[u8]; 3] = [b"{\"a\":1}", b"", b"{\"b\":2}"];
        let whole = slices.concat();
        assert_eq!(Encoding::None.compress(&slices, &Pool::default()).unwrap(), whole);
        assert_eq!(gunzip(&Encoding::Gzip.compress(&slices, &Pool::default()).unwrap()), whole);
        assert_eq!(
            zstd::decode_all(&*Encoding::Zstd.compress(&slices, &Pool::default()).unwrap()).unwrap(),
            whole
        );
        let deflated = Encoding::Deflate.compress(&slices, &Pool::default()).unwrap();
        let mut inflated = Vec::new();
        flate2::read::ZlibDecoder::new(&*deflated).read_to_end(&mut inflated).unwrap();
        assert_eq!(inflated, whole);
        assert_eq!(gunzip(&Encoding::Gzip.compress(&[], &Pool::default()).unwrap()), b"");
    }

    #[test]
    fn gzip_leaves_at_most_a_sixth_of_audit_lines() {
        let options = Options::new(3, 1, 1000, Date::parse("2026-01-31").unwrap());
        let body = Bucket::new(options).unwrap().lines().collect::<Vec<_>>().concat();
        let compressed = Encoding::Gzip.compress(&[&body], &Pool::default()).unwrap();
        assert_eq!(gunzip(&compressed), body);
        assert!(compressed.len() * 6 <= body.len(), "{} of {}", compressed.len(), body.len());
    }

    #[test]
    fn a_body_that_does_not_shrink_is_sent_all_the_same() {
        let mut random = fastrand::Rng::with_seed(1);
        let body: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(100_000).collect();
        assert_eq!(gunzip(&Encoding::Gzip.compress(&[&body], &Pool::default()).unwrap()), body);
        let compressed = Encoding::Zstd.compress(&[&body], &Pool::default()).unwrap();
        assert_eq!(zstd::decode_all(&*compressed).unwrap(), body);
    }
}
