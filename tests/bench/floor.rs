//! The least that any forwarder has to do: read, split into lines, see that each is JSON, copy it into an envelope,
//! and compress batches of them.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

use auditferry::buffer::Pool;
use auditferry::compress::Encoding;
use serde_json::value::RawValue;

use super::Result;
use super::ferry::{self, Cost};

/// Uncompressed bytes of a batch, as the outputs make them.
const BATCH_BYTES: usize = 1_000_000;
const BLOCK_BYTES: usize = 1 << 20;

/// Starts this benchmark anew to do it, and nothing else.
pub(crate) fn run(bucket: &Path) -> Result<Cost> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--floor").arg(bucket);
    ferry::measure(command)
}

/// Does it for all objects below a directory.
pub(crate) fn walk(directory: &Path) -> Result<()> {
    for entry in directory.read_dir()? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => walk(&entry.path())?,
            false => forward(&entry.path())?,
        }
    }
    Ok(())
}

fn forward(object: &Path) -> Result<()> {
    let mut reader = BufReader::with_capacity(BLOCK_BYTES, File::open(object)?);
    let pool = Pool::default();
    let (mut line, mut batch) = (Vec::new(), Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 4));
    while reader.read_until(b'\n', &mut line)? > 0 {
        let record: &RawValue = serde_json::from_slice(&line)?;
        batch.extend_from_slice(b"{\"event\":");
        batch.extend_from_slice(record.get().as_bytes());
        batch.push(b'}');
        line.clear();
        if batch.len() >= BATCH_BYTES {
            black_box(Encoding::Gzip.compress(&[&batch], &pool)?);
            batch.clear();
        }
    }
    black_box(Encoding::Gzip.compress(&[&batch], &pool)?);
    Ok(())
}
