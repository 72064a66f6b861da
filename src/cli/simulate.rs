//! `auditferry simulate`: the events of files, as they would be shipped.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use flate2::read::MultiGzDecoder;

use super::{CommandError, Ended};
use crate::app::redaction::{self, Key};
use crate::chunk::Origin;
use crate::compress::Encoding;
use crate::config::{self, Config};
use crate::decode::audit::AuditDecoder;
use crate::decode::redacting::RedactingDecoder;
use crate::decode::{Decoder, Undecodable};
use crate::format::{Format, FormatName};
use crate::input::bucket::workspace_in;
use crate::redact::Redactor;
use crate::registry::{self, FormatOptions};

/// Longest document that is read as one where its first line is no JSON by itself.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

#[derive(Args, Debug)]
pub(super) struct SimulateArgs {
    /// Files of records, one a line, plain, gzip or zstd; - is stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How events are written
    #[arg(long, value_enum, default_value_t = FormatName::Canonical, conflicts_with = "config")]
    format: FormatName,
    /// Configuration file: format and redaction are those of its output; may be given several times
    #[arg(short, long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Which of its outputs [default: the only one]
    #[arg(long, value_name = "NAME", requires = "config")]
    output: Option<String>,
    /// Take what the path says as this layout does; with databricks_delivery the workspace of records that name none
    #[arg(long, value_enum, value_name = "LAYOUT")]
    layout: Option<SimulatedLayout>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum SimulatedLayout {
    /// workspaceId=<id>/date=<day>/auditlogs_<id>.json
    DatabricksDelivery,
    /// PT1H.json blobs of an Azure diagnostic setting
    AzureDiagnostic,
    /// PT05M.json blobs of a Log Analytics data export
    LogAnalyticsExport,
    /// The path says nothing
    Any,
}

pub(super) fn run(args: &SimulateArgs, out: &mut impl Write) -> Result<Ended, CommandError> {
    let (decoder, format) = match args.config.as_slice() {
        [] => unconfigured(args.format)?,
        files => configured(files, args.output.as_deref())?,
    };
    let mut simulation = Simulation {
        decoder,
        format: &*format,
        out: io::BufWriter::new(out),
        scratch: Vec::new(),
        refused: 0,
    };
    for path in &args.files {
        let workspace = match args.layout {
            Some(SimulatedLayout::DatabricksDelivery) => {
                workspace_in(&path.to_string_lossy()).map(Into::into)
            }
            _ => None,
        };
        let origin = Origin { workspace, ..Origin::default() };
        simulation.file(path, &origin).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => CommandError::from(error),
            _ => format!("cannot read {}: {error}", path.display()).into(),
        })?;
    }
    simulation.out.flush()?;
    Ok(if simulation.refused > 0 { Ended::WithRest } else { Ended::Well })
}

/// What a pipeline makes events with.
type Making = (Box<dyn Decoder>, Box<dyn Format>);

/// Marks of a key that everybody knows: what is printed here does not leave, and is alike on every machine.
const KEY: &[u8] = b"simulate";

fn unconfigured(format: FormatName) -> Result<Making, CommandError> {
    let redactor = Redactor::new(KEY, &[], &[])?;
    let decoder = RedactingDecoder { decoder: Box::<AuditDecoder>::default(), redactor };
    Ok((Box::new(decoder), registry::format(format, FormatOptions::default())))
}

/// As the pipeline to this output has them; nothing of the collector's need be there, its secrets included.
fn configured(files: &[PathBuf], output: Option<&str>) -> Result<Making, CommandError> {
    let config = Config::load(files, &config::environment())?;
    let name = match (output, config.outputs.keys().collect::<Vec<_>>().as_slice()) {
        (Some(name), _) => name.to_owned(),
        (None, [only]) => (*only).clone(),
        (None, []) => return Err("no output is configured".into()),
        (None, [..]) => {
            let names: Vec<&str> = config.outputs.keys().map(String::as_str).collect();
            return Err(format!("name one of the outputs: --output {}", names.join(" | ")).into());
        }
    };
    let common = &config.outputs.get(&name).ok_or_else(|| config.no_such_output(&name))?.common;
    let format = registry::format(common.format, common.format_options);
    // What an input says in place of its records belongs to files of that input alone.
    let of_output: Vec<_> = config.pipelines.iter().filter(|pipeline| pipeline.output == name).collect();
    let pipeline = match of_output.as_slice() {
        [only] => format!("{}/{name}", only.input),
        _ => format!("/{name}"),
    };
    let key = Key::KeptOr(&config.state_dir, KEY);
    Ok((redaction::decoder(&config, &pipeline, &name, key)?, format))
}

struct Simulation<'a, W: Write> {
    decoder: Box<dyn Decoder>,
    format: &'a dyn Format,
    out: io::BufWriter<W>,
    scratch: Vec<u8>,
    refused: u64,
}

impl<W: Write> Simulation<'_, W> {
    fn file(&mut self, path: &Path, origin: &Origin) -> io::Result<()> {
        let mut lines = Lines { reader: open(path)?, line: Vec::new() };
        let mut seen: HashMap<u64, u32> = HashMap::new();
        let mut number = 0u64;
        while let Some(line) = lines.next_line()? {
            number += 1;
            let record = line.trim_ascii();
            if record.is_empty() {
                continue;
            }
            let occurrence = seen.entry(xxhash_rust::xxh3::xxh3_64(record)).or_default();
            let result = self.record(record, *occurrence, origin)?;
            *occurrence += 1;
            let Err(error) = result else { continue };
            if number == 1 && self.document(path, origin)? {
                return Ok(());
            }
            self.refused += 1;
            writeln!(io::stderr(), "{}:{number}: {} ({})", path.display(), error.detail, error.reason)?;
        }
        Ok(())
    }

    /// Takes a file as one document over several lines; `false` if it is none.
    fn document(&mut self, path: &Path, origin: &Origin) -> io::Result<bool> {
        if path == Path::new("-") {
            return Ok(false);
        }
        let mut text = Vec::new();
        open(path)?.take(MAX_DOCUMENT_BYTES).read_to_end(&mut text)?;
        Ok(self.record(text.trim_ascii(), 0, origin)?.is_ok())
    }

    fn record(
        &mut self,
        record: &[u8],
        occurrence: u32,
        origin: &Origin,
    ) -> io::Result<Result<(), Undecodable>> {
        let mut frames = Vec::new();
        let decoded = self.decoder.decode(record, occurrence, origin, &mut self.scratch, &mut |event| {
            self.format.encode(event, &mut frames);
            frames.push(b'\n');
        });
        self.out.write_all(&frames)?;
        Ok(decoded)
    }
}

struct Lines {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
}

impl Lines {
    fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line)?;
        Ok((read > 0).then_some(self.line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.line)))
    }
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    Ok(match Encoding::sniff(reader.fill_buf()?) {
        Encoding::None | Encoding::Deflate => Box::new(reader),
        Encoding::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(reader))),
        Encoding::Zstd => Box::new(BufReader::new(zstd::Decoder::new(reader)?)),
    })
}
