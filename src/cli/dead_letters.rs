//! `auditferry dead-letters`: what no collector took.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use clap::{Args, Subcommand};
use tokio_util::sync::CancellationToken;

use super::{CommandError, ConfigFiles, Ended, Place, runtime};
use crate::app::{self, Source};
use crate::budget::Budget;
use crate::chunk::{Chunk, Origin, Partition, Position, Record};
use crate::config::Config;
use crate::dead_letter::file::{self, FileDeadLetters, KeptLetter, LetterFile, Letters};
use crate::dead_letter::{DeadLetter, DeadLetters};
use crate::input::{Input, InputError, Read};
use crate::metrics::Metrics;
use crate::state::none::NoState;
use crate::time::Millis;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// Count them by pipeline and reason
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Print them as JSON, one a line
    Show {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        chosen: Chosen,
        /// At most this many
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: usize,
    },
    /// Send them again, after what they were refused for is put right; a service may run meanwhile
    #[command(
        after_help = "Those that are refused again become dead letters again. Exit code 1 if any were."
    )]
    Replay {
        #[command(flatten)]
        files: ConfigFiles,
        /// Only those of this pipeline, <input>/<output>
        #[arg(long, value_name = "PIPELINE")]
        pipeline: Option<String>,
    },
    /// Remove them for good: those that fit all that is said, or --all; a service may run meanwhile
    Drop(DropArgs),
}

/// Some of the dead letters.
#[derive(Args, Debug)]
pub(super) struct Chosen {
    /// Only those of this pipeline, <input>/<output>
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// Only those of this reason, as `list` names it
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
}

impl Chosen {
    fn fits(&self, kept: &KeptLetter) -> bool {
        self.pipeline.as_ref().is_none_or(|pipeline| *pipeline == kept.pipeline)
            && self.reason.as_ref().is_none_or(|reason| *reason == kept.letter.reason)
    }
}

#[derive(Args, Debug)]
pub(super) struct DropArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    chosen: Chosen,
    /// Only those that were kept before this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<Millis>,
    /// All of them
    #[arg(long, conflicts_with_all = ["pipeline", "reason", "before"])]
    all: bool,
}

fn parse_time(text: &str) -> Result<Millis, String> {
    Millis::parse(text).ok_or_else(|| "write it as 2026-01-31T12:00:00Z".to_owned())
}

impl DropArgs {
    fn names_none(&self) -> bool {
        !self.all && self.chosen.pipeline.is_none() && self.chosen.reason.is_none() && self.before.is_none()
    }

    /// A letter whose time cannot be read is not older than anything.
    fn fits(&self, kept: &KeptLetter) -> bool {
        let older = |before| Millis::parse(&kept.time).is_some_and(|time| time < before);
        self.chosen.fits(kept) && self.before.is_none_or(older)
    }
}

pub(super) fn run(command: &DeadLettersCommand) -> Result<Ended, CommandError> {
    let mut out = io::stdout().lock();
    match command {
        DeadLettersCommand::List { place } => list(&place.state_dir()?, &mut out)?,
        DeadLettersCommand::Show { place, chosen, limit } => {
            show(&place.state_dir()?, chosen, *limit, &mut out)?;
        }
        DeadLettersCommand::Drop(args) => remove(args, &mut out)?,
        DeadLettersCommand::Replay { files, pipeline } => {
            return runtime()?.block_on(replay_all(&files.load()?, pipeline.as_deref(), &mut out));
        }
    }
    Ok(Ended::Well)
}

fn list(state_dir: &Path, out: &mut impl Write) -> Result<(), CommandError> {
    let mut counts: BTreeMap<(String, String), (u64, String)> = BTreeMap::new();
    for file in file::list(state_dir)? {
        for kept in file::read(&file.path)? {
            let KeptLetter { time, pipeline, letter, .. } = kept?;
            let (count, newest) = counts.entry((pipeline, letter.reason)).or_default();
            *count += 1;
            *newest = time.max(std::mem::take(newest));
        }
    }
    if counts.is_empty() {
        writeln!(out, "no dead letters")?;
        return Ok(());
    }
    writeln!(out, "{:<32} {:<20} {:>8}  newest", "pipeline", "reason", "letters")?;
    for ((pipeline, reason), (count, newest)) in counts {
        writeln!(out, "{pipeline:<32} {reason:<20} {count:>8}  {newest}")?;
    }
    Ok(())
}

fn show(state_dir: &Path, chosen: &Chosen, limit: usize, out: &mut impl Write) -> Result<(), CommandError> {
    let mut shown = 0;
    for file in file::list(state_dir)? {
        for kept in file::read(&file.path)? {
            let kept = kept?;
            if !chosen.fits(&kept) {
                continue;
            }
            if shown == limit {
                writeln!(io::stderr(), "there are more; raise --limit")?;
                return Ok(());
            }
            shown += 1;
            let KeptLetter { time, pipeline: of, letter, index } = kept;
            // As editors count lines; in the file they are counted from 0.
            let line_number = letter.origin.line.saturating_add(1);
            let line = serde_json::json!({
                "index": index, "time": time, "pipeline": of, "reason": letter.reason, "detail": letter.detail,
                "object": letter.origin.object, "offset": letter.origin.offset, "line": line_number,
                "truncated": letter.truncated, "record": String::from_utf8_lossy(&letter.record),
            });
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn remove(args: &DropArgs, out: &mut impl Write) -> Result<(), CommandError> {
    if args.names_none() {
        return Err("say which to drop: --pipeline, --reason, --before, or --all for every one".into());
    }
    let mut removed = 0;
    for path in own_names(&file::list(&args.place.state_dir()?)?) {
        removed += file::remove(&path, |kept| args.fits(kept))?;
    }
    match removed {
        0 => writeln!(out, "no dead letters to drop")?,
        _ => writeln!(out, "{} dropped", counted(removed))?,
    }
    Ok(())
}

fn counted(letters: u64) -> String {
    if letters == 1 { "1 dead letter".to_owned() } else { format!("{letters} dead letters") }
}

async fn replay_all(
    config: &Config,
    only: Option<&str>,
    out: &mut impl Write,
) -> Result<Ended, CommandError> {
    let (mut delivered, mut dead, mut found) = (0, 0, false);
    for path in own_names(&files_of(only, &config.state_dir)?) {
        while let Some(taken) = file::take(&path)? {
            let Some(pipeline) = first_pipeline(taken.letters()?)? else {
                taken.finish()?;
                break;
            };
            found = true;
            let counts = replay(config, &pipeline, taken.letters()?).await?;
            taken.finish()?;
            delivered += counts.0;
            dead += counts.1;
            writeln!(out, "{pipeline}: {} delivered, {} again", counts.0, counted(counts.1))?;
            if counts.1 > 0 {
                // What was refused again lies in the same file.
                break;
            }
        }
    }
    if !found {
        writeln!(out, "no dead letters to replay")?;
    }
    tracing::info!(delivered, dead, "replayed");
    Ok(if dead > 0 { Ended::WithRest } else { Ended::Well })
}

/// The files of one pipeline, or all. They are looked into before they are taken: another pipeline's letters stay where they
/// are, and another replay may be at them.
fn files_of(only: Option<&str>, state_dir: &Path) -> Result<Vec<LetterFile>, CommandError> {
    let mut files = file::list(state_dir)?;
    if let Some(only) = only {
        let mut chosen = Vec::new();
        for file in files {
            if first_pipeline(file::read(&file.path)?)?.is_some_and(|pipeline| pipeline == only) {
                chosen.push(file);
            }
        }
        files = chosen;
    }
    Ok(files)
}

/// The names of files, each once.
fn own_names(files: &[LetterFile]) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = files.iter().map(own_name).collect();
    names.dedup();
    names
}

/// The name under which new letters are added, also of a file that an interrupted replay took.
fn own_name(file: &LetterFile) -> PathBuf {
    if file.replaying { file.path.with_extension("") } else { file.path.clone() }
}

fn first_pipeline(mut letters: Letters) -> Result<Option<String>, CommandError> {
    Ok(letters.next().transpose()?.map(|kept| kept.pipeline))
}

/// Sends letters through their pipeline's output; `(delivered, dead again)`.
async fn replay(config: &Config, name: &str, letters: Letters) -> Result<(u64, u64), CommandError> {
    let (_, output_name) = name.split_once('/').ok_or_else(|| format!("`{name}` names no pipeline"))?;
    let (input_name, _) = name.split_once('/').unwrap_or_default();
    let budget = Budget::new(config.memory.get());
    let kept = FileDeadLetters::open(&config.state_dir, name)?;
    let input = Arc::new(ReplayInput {
        letters: Mutex::new(letters),
        budget: budget.clone(),
        kept,
        number: Mutex::new(0),
        incomplete: AtomicU64::new(0),
    });
    let metrics = Metrics::new()?.pipeline(input_name, output_name);
    let source = Source {
        name,
        input: Arc::clone(&input) as Arc<dyn Input>,
        budget,
        state: Arc::new(NoState),
        once: true,
    };
    let pipeline = app::pipeline(config, output_name, source, &config.state_dir, metrics.clone())?;
    pipeline.run(CancellationToken::new()).await?;
    let delivered = metrics.events_delivered.get() + metrics.events_duplicate.get();
    Ok((delivered, metrics.dead_letters() + input.incomplete.load(Ordering::Relaxed)))
}

/// Reads kept letters as if they came from where they first came from.
struct ReplayInput {
    letters: Mutex<Letters>,
    budget: Budget,
    kept: FileDeadLetters,
    number: Mutex<u64>,
    /// Letters that were kept again at once, since they hold only the beginning of a record.
    incomplete: AtomicU64,
}

#[async_trait]
impl Input for ReplayInput {
    async fn read(&self) -> Result<Read, InputError> {
        loop {
            let next = self.letters.lock().unwrap_or_else(PoisonError::into_inner).next();
            let unreadable = |error: CommandError| InputError::Refused {
                action: "cannot replay dead letters".to_owned(),
                source: error,
                remedy: "repair or remove that line".to_owned(),
            };
            let letter = match next {
                None => return Ok(Read::End),
                Some(kept) => kept.map_err(|error| unreadable(error.into()))?.letter,
            };
            if letter.truncated {
                // There is nothing to send: the whole record was never kept.
                self.incomplete.fetch_add(1, Ordering::Relaxed);
                self.kept.keep(vec![letter]).await.map_err(|error| unreadable(error.into()))?;
                continue;
            }
            let number = {
                let mut number = self.number.lock().unwrap_or_else(PoisonError::into_inner);
                *number += 1;
                *number
            };
            return Ok(Read::Chunk(self.chunk(letter, number).await));
        }
    }

    async fn committed(&self, _: &Partition, _: &Position) {}
}

impl ReplayInput {
    async fn chunk(&self, letter: DeadLetter, number: u64) -> Chunk {
        let end = u32::try_from(letter.record.len()).unwrap_or(u32::MAX);
        let origin = Origin {
            workspace: letter.origin.workspace.as_deref().map(Into::into),
            cloud: ["aws", "gcp", "azure"]
                .into_iter()
                .find(|cloud| letter.origin.cloud.as_deref() == Some(cloud)),
            ..Origin::of_object(&letter.origin.object)
        };
        Chunk {
            partition: Partition::new(&number.to_string()),
            position: Position::new("replayed"),
            records: vec![Record { start: 0, end, line: 0, occurrence: letter.origin.occurrence }],
            offset: letter.origin.offset,
            line: letter.origin.line,
            origin: Arc::new(origin),
            credit: self.budget.take(letter.record.len()).await,
            payload: letter.record,
            ..Chunk::default()
        }
    }
}
