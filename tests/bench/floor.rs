//! What a run is measured against, both on one thread: the least that any forwarder has to do, and the least that this
//! one has to do for the same bytes.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use auditferry::batch::{Batch, Frame, Frames, Sequence};
use auditferry::buffer::{Buffer, Pool};
use auditferry::chunk::Origin;
use auditferry::compress::Encoding;
use auditferry::decode::Decoder;
use auditferry::decode::audit::AuditDecoder;
use auditferry::decode::redacting::RedactingDecoder;
use auditferry::format::Format;
use auditferry::http::HttpSettings;
use auditferry::kept::KeptRecords;
use auditferry::output::{Output, OutputContext, OutputKind, elastic, file, splunk_hec, sumo};
use auditferry::redact::Redactor;
use auditferry::registry::{self, FormatOptions};
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Result;
use super::ferry::{self, Cost, Destination};

/// Uncompressed bytes of a batch, as the outputs make them.
const BATCH_BYTES: usize = 1_000_000;
const BLOCK_BYTES: usize = 1 << 20;

/// Starts this benchmark anew to do one of them, and nothing else: the least of any forwarder where there is no
/// destination.
pub(crate) fn run(bucket: &Path, same_bytes: Option<Destination>) -> Result<Cost> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--floor").arg(bucket);
    if let Some(name) = same_bytes.as_ref().and_then(clap::ValueEnum::to_possible_value) {
        command.args(["--same-bytes", name.get_name()]);
    }
    ferry::measure(command)
}

/// Does it.
pub(crate) fn forward(bucket: &Path, same_bytes: Option<Destination>) -> Result<()> {
    match same_bytes {
        None => walk(bucket, &mut any_forwarder),
        Some(destination) => {
            let same = SameBytes::new(destination)?;
            walk(bucket, &mut |object| same.forward(object))
        }
    }
}

fn walk(directory: &Path, act: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in directory.read_dir()? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => walk(&entry.path(), act)?,
            false => act(&entry.path())?,
        }
    }
    Ok(())
}

/// Reads, splits into lines, sees that each is JSON, copies it into an envelope, and compresses batches of them.
fn any_forwarder(object: &Path) -> Result<()> {
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

/// Reads, splits, takes secrets out, decodes, encodes and compresses as the pipeline does and with its functions, but
/// without an engine: no tasks, positions, fingerprints, state, metrics and requests.
struct SameBytes {
    decoder: RedactingDecoder,
    format: Box<dyn Format>,
    output: Box<dyn Output>,
    encoding: Encoding,
    max_bytes: usize,
    max_events: usize,
}

impl SameBytes {
    fn new(destination: Destination) -> Result<Self> {
        let url = "http://127.0.0.1:1/receiver/v1/http/benchmark";
        let (kind, table): (OutputKind, Value) = match destination {
            Destination::Hec | Destination::S3 => {
                (splunk_hec::KIND, json!({"url": "http://127.0.0.1:1", "token": "benchmark"}))
            }
            Destination::Sumo | Destination::SumoGzip => (sumo::KIND, json!({ "url": url })),
            Destination::Bulk => (elastic::KIND, json!({"url": "http://127.0.0.1:1", "index": "audit"})),
            Destination::File => (file::KIND, json!({"path": "events.ndjson"})),
        };
        let format = kind.defaults.format;
        let context = OutputContext { name: "floor".to_owned(), format, http: HttpSettings::default() };
        Ok(Self {
            decoder: RedactingDecoder {
                decoder: Box::<AuditDecoder>::default(),
                redactor: Redactor::new(b"benchmark", &[], &[])?,
            },
            format: registry::format(format, FormatOptions::default()),
            output: (kind.build)(table, context)?,
            encoding: match destination {
                Destination::SumoGzip => Encoding::Gzip,
                _ => kind.defaults.compression,
            },
            max_bytes: usize::try_from(kind.defaults.max_bytes)?,
            max_events: kind.defaults.max_events,
        })
    }

    fn forward(&self, object: &Path) -> Result<()> {
        let mut reader = BufReader::with_capacity(BLOCK_BYTES, File::open(object)?);
        let (pool, origin) = (Pool::default(), Origin::of_object(&object.to_string_lossy()));
        let terminator = self.output.framing().terminator;
        let grouped = self.encoding.gains_by_order() && self.output.any_order();
        let room = self.max_bytes + self.max_bytes / 4;
        let (mut line, mut scratch) = (Vec::new(), Vec::new());
        let (mut encoded, mut frames) = (pool.take(room), Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            let record = line.trim_ascii_end();
            let decoded = self.decoder.decode(record, 0, &origin, &mut scratch, &mut |event| {
                self.output.encode(event, &*self.format, &mut encoded);
                encoded.extend_from_slice(terminator);
                let end = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
                let kind = if grouped { event.kind() } else { 0 };
                frames.push(Frame { end, kind, ..Frame::default() });
            });
            decoded.map_err(|error| error.detail)?;
            line.clear();
            if encoded.len() >= self.max_bytes || frames.len() >= self.max_events {
                self.compress(
                    std::mem::take(&mut frames),
                    std::mem::replace(&mut encoded, pool.take(room)),
                    &pool,
                )?;
            }
        }
        self.compress(frames, encoded, &pool)
    }

    fn compress(&self, frames: Vec<Frame>, encoded: Buffer, pool: &Pool) -> Result<()> {
        if self.encoding == Encoding::None {
            return Ok(());
        }
        let range = 0..frames.len();
        let frames = Frames { sequence: Sequence(0), records: KeptRecords::default(), frames };
        let mut batch = Batch::default();
        batch.push(&Arc::new(frames), &Bytes::from_owner(encoded), range);
        let batch = batch.grouped();
        black_box(self.encoding.compress(&batch.body(b"", self.output.framing()), pool)?);
        Ok(())
    }
}
