//! How much memory hostile input takes at its full size: gigabytes of one line, bombs, a million keys, ten thousand
//! workspaces. `tests/it/bounds.rs` tries the same in small.
//!
//! `cargo bench --bench bounds -- [CASE…]`. Takes some minutes and no disk to speak of. Ends with 1 where a case needs too
//! much.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, ValueEnum};
use flate2::Compression;
use flate2::write::GzEncoder;

#[expect(dead_code, reason = "the other benches compare destinations")]
mod ferry;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Memory that no case may need more of, with the default of `memory`.
const MOST_BYTES: u64 = 128 << 20;
/// The same with lines of nearly `max_line_bytes`.
const MOST_BYTES_LONG_LINE: u64 = 224 << 20;
const RECORD: &str =
    r#"{"timestamp":1767609296007,"orgId":"7","serviceName":"accounts","actionName":"login","requestId":"r""#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// One line of 1 GB
    Line,
    /// Ten million empty lines
    Empty,
    /// Five million lines of two bytes
    Short,
    /// Envelopes of five million records on one line
    Envelope,
    /// Objects and arrays as deep as the line is long
    Deep,
    /// Texts within a text, of 15 MB and of 100 MB
    Nested,
    /// 4 GB in 4 MB of gzip
    Bomb,
    /// 4 GB in some KB of zstd
    ZstdBomb,
    /// A listing of a million keys
    Keys,
    /// Ten thousand workspaces
    Workspaces,
}

#[derive(Parser)]
struct Args {
    /// Only these
    cases: Vec<Case>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let cases = if args.cases.is_empty() { Case::value_variants() } else { &args.cases };
    let mut all_fit = true;
    for case in cases {
        all_fit &= run(*case)?;
    }
    Ok(if all_fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(case: Case) -> Result<bool> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let directory = directory.path();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let folder = directory.join(format!("bucket/workspaceId=7/date={date}"));
    fs::create_dir_all(&folder)?;
    write(case, &folder)?;
    let config = directory.join("auditferry.toml");
    let text = format!(
        "state_dir = {:?}\nserver.listen = \"none\"\n[inputs.in]\ntype = \"bucket\"\nurl = {:?}\n\
         [outputs.out]\ntype = \"file\"\npath = \"-\"\n",
        directory.join("state"),
        directory.join("bucket"),
    );
    fs::write(&config, text)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_auditferry"));
    command.args(["run", "--once", "--config"]).arg(&config);
    command.stdout(Stdio::null()).stderr(File::create(directory.join("log"))?);
    let (cost, code) = ferry::measure_any(command)?;
    let most = if matches!(case, Case::Deep | Case::Nested | Case::Envelope) {
        MOST_BYTES_LONG_LINE
    } else {
        MOST_BYTES
    };
    let fits = cost.peak_bytes <= most && matches!(code, Some(0 | 1));
    writeln!(
        io::stdout(),
        "{case:?}: peak RSS {} MB (at most {}: {}), {:.1} s, {:.1} CPU s, exit code {code:?}",
        cost.peak_bytes / 1_000_000,
        most / 1_000_000,
        if fits { "met" } else { "MISSED" },
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
    )?;
    Ok(fits)
}

fn write(case: Case, folder: &Path) -> Result<()> {
    let path = folder.join("auditlogs_1.json");
    let with = |value: &str| format!("{RECORD},\"requestParams\":{{\"a\":{value}}}}}\n");
    match case {
        Case::Line => {
            let mut file = File::create(path)?;
            // A hole: no disk is filled.
            file.set_len(1 << 30)?;
            file.seek(SeekFrom::End(0))?;
            writeln!(file, "\n{RECORD}}}")?;
        }
        Case::Empty => fs::write(path, "\n".repeat(10_000_000))?,
        Case::Short => fs::write(path, "{}\n".repeat(5_000_000))?,
        Case::Envelope => fs::write(path, format!("[{}{{}}]\n", "{},".repeat(5_000_000)))?,
        Case::Deep => {
            let deep = 5 << 20;
            let (open, close) = ("[".repeat(deep), "]".repeat(deep));
            let objects = format!("{}1{}", "{\"a\":".repeat(2 << 20), "}".repeat(2 << 20));
            fs::write(path, [with(&(open.clone() + &close)), with(&objects), open].concat())?;
        }
        Case::Nested => {
            let text = |bytes| with(&format!("\"{{\\\"b\\\":\\\"{}\\\"}}\"", "x".repeat(bytes)));
            fs::write(path, [text(15 << 20), text(100 << 20), text(15 << 20), text(15 << 20)].concat())?;
        }
        Case::Bomb => {
            let mut encoder = GzEncoder::new(File::create(path)?, Compression::best());
            for _ in 0..4 << 10 {
                encoder.write_all(&[b'\n'; 1 << 20])?;
            }
            encoder.finish()?;
        }
        Case::ZstdBomb => {
            let mut encoder = zstd::Encoder::new(File::create(path)?, 19)?;
            for _ in 0..4 << 10 {
                encoder.write_all(&[b'\n'; 1 << 20])?;
            }
            encoder.finish()?;
        }
        Case::Keys => {
            for number in 0..1_000_000 {
                File::create(folder.join(format!("auditlogs_{number:07}.json")))?;
            }
        }
        Case::Workspaces => {
            for workspace in 0..10_000 {
                let name = format!("workspaceId={workspace}");
                let folder =
                    Path::new(&folder.display().to_string().replace("workspaceId=7", &name)).to_owned();
                fs::create_dir_all(&folder)?;
                fs::write(folder.join("auditlogs_2.json"), format!("{RECORD}}}\n"))?;
            }
        }
    }
    Ok(())
}
