//! Compression of request bodies, and recognition of compressed objects.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    #[default]
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// zlib-rs on audit lines: 202 MB per CPU-second at 17.5 % of the size; level 2 takes 25 % less time for 18.9 %, level 6 40 % more for 15.2 %.
const GZIP_LEVEL: u32 = 3;
const ZSTD_LEVEL: i32 = 1;

impl Encoding {
    /// The `Content-Encoding` header; none for an uncompressed body.
    pub fn header(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// Compresses a body given in slices.
    ///
    /// # Errors
    /// Only what the compressor reports when it cannot set itself up; memory is the sole thing it writes to.
    pub fn compress(self, slices: &[&[u8]]) -> io::Result<Vec<u8>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        match self {
            Self::None => Ok(slices.concat()),
            Self::Gzip => {
                let mut encoder =
                    GzEncoder::new(Vec::with_capacity(total / 4 + 64), flate2::Compression::new(GZIP_LEVEL));
                for slice in slices {
                    encoder.write_all(slice)?;
                }
                encoder.finish()
            }
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(Vec::with_capacity(total / 4 + 64), ZSTD_LEVEL)?;
                for slice in slices {
                    encoder.write_all(slice)?;
                }
                encoder.finish()
            }
        }
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
