//! `auditferry state`: whether the record of what was shipped is sound, and how it is made anew.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use tokio_util::sync::CancellationToken;

use super::{CommandError, ConfigFiles, Ended, Place, runtime};
use crate::app::{self, Source};
use crate::budget::Budget;
use crate::compress::Encoding;
use crate::config::{Config, Pipeline};
use crate::input::{InputContext, Resume, Shared, bucket};
use crate::metrics::{Metrics, PipelineMetrics};
use crate::output::nowhere::Nowhere;
use crate::state::sqlite::{self, Replacement, SqliteState};
use crate::state::{State, StateError};
use crate::time::Millis;

#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// Look through the state and say what it knows and what is wrong with it; a service may run meanwhile
    #[command(
        after_help = "Exit codes: 0 it is sound, or there is none yet; 1 it is damaged; 2 it cannot be looked at"
    )]
    Verify {
        #[command(flatten)]
        place: Place,
    },
    /// Make the state of all bucket inputs anew: read the buckets, send nothing, and take what they held before a time for
    /// delivered
    #[command(
        after_help = "Objects that were changed at that time or later are shipped by the next run, whole: choose a time before \
                      the loss, earlier by as much as the collector was behind, and nothing is missing. To have everything sent \
                      again instead, remove state.db: a collector that knows events by their id (elastic) takes none twice.\n\n\
                      What the state knew of other inputs is taken over where it can still be read. The old state is kept beside \
                      the new one. The service must not run."
    )]
    Rebuild(RebuildArgs),
    /// Forget the objects of dates before `start_date`, which no input looks at any more
    #[command(
        after_help = "For a bucket that drops its old objects: set `start_date` of the input to a date that it still has, and prune. \
                      Nothing is sent again, unless `start_date` is set to an earlier date later on: what the bucket still has of \
                      the forgotten dates is then shipped once more. The service must not run."
    )]
    Prune(ConfigFiles),
}

#[derive(Args, Debug)]
pub(super) struct RebuildArgs {
    #[command(flatten)]
    files: ConfigFiles,
    /// What was in the buckets before this time counts as delivered, such as 2026-01-31T12:00:00Z, or `now`
    #[arg(long, value_name = "TIME")]
    until: Until,
    /// Also where the state is sound
    #[arg(long)]
    replace: bool,
}

#[derive(Clone, Copy, Debug)]
struct Until(Option<Millis>);

impl std::str::FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "now" => Ok(Self(None)),
            text => Millis::parse(text)
                .map(|at| Self(Some(at)))
                .ok_or_else(|| "write it as 2026-01-31T12:00:00Z, or `now`".to_owned()),
        }
    }
}

pub(super) fn run(command: &StateCommand, out: &mut impl Write) -> Result<Ended, CommandError> {
    match command {
        StateCommand::Prune(files) => prune(&files.load()?, out),
        StateCommand::Verify { place } => verify(place.state_dir()?, out),
        StateCommand::Rebuild(args) => {
            let config = args.files.load()?;
            let until = args.until.0.unwrap_or_else(app::now);
            refuse_sound(&config, args.replace)?;
            runtime()?.block_on(rebuild(&config, until, out))
        }
    }
}

fn verify(directory: PathBuf, out: &mut impl Write) -> Result<Ended, CommandError> {
    let Some(found) = sqlite::verify(&directory)? else {
        writeln!(out, "there is no state in {} yet: a run begins with all there is", directory.display())?;
        return Ok(Ended::Well);
    };
    writeln!(
        out,
        "state in {}: version {}, {}",
        directory.display(),
        found.version,
        HumanBytes(found.bytes)
    )?;
    for kept in &found.kept {
        let notes = HumanBytes(kept.note_bytes);
        writeln!(
            out,
            "  {:<24} {:>10} positions, {notes} of fingerprints and ids",
            kept.namespace, kept.positions
        )?;
    }
    if found.problems.is_empty() {
        writeln!(out, "it is sound")?;
        return Ok(Ended::Well);
    }
    for problem in &found.problems {
        writeln!(out, "  damaged: {problem}")?;
    }
    writeln!(out, "stop the service and make it anew: auditferry state rebuild --until <before the damage>")?;
    Ok(Ended::WithRest)
}

fn prune(config: &Config, out: &mut impl Write) -> Result<Ended, CommandError> {
    if sqlite::verify(&config.state_dir)?.is_none() {
        writeln!(out, "there is no state in {} yet", config.state_dir.display())?;
        return Ok(Ended::Well);
    }
    let state = SqliteState::open(&config.state_dir)?;
    for Pipeline { input, output } in &config.pipelines {
        let name = format!("{input}/{output}");
        let of_bucket = config.inputs.get(input).filter(|input| input.kind.name == bucket::KIND.name);
        match of_bucket.and_then(|input| bucket::never_looked_at(&input.table)) {
            Some(folders) => {
                let forgotten = state.forget(&name, &folders)?;
                writeln!(out, "{name}: {forgotten} objects forgotten")?;
            }
            None if of_bucket.is_some() => {
                writeln!(out, "{name}: nothing to forget: inputs.{input}.start_date is not set")?;
            }
            None => {}
        }
    }
    state.shrink();
    Ok(Ended::Well)
}

/// A state that is sound is not given up by mistake.
fn refuse_sound(config: &Config, replace: bool) -> Result<(), CommandError> {
    let sound = match sqlite::verify(&config.state_dir) {
        // Of version 0 is a file without tables: what a process left that died before it had made them.
        Ok(Some(found)) => found.problems.is_empty() && found.version > 0,
        Err(error @ StateError::TooNew { .. }) => return Err(error.into()),
        Ok(None) | Err(_) => false,
    };
    if sound && !replace {
        let place = config.state_dir.display();
        return Err(format!("the state in {place} is sound; --replace makes it anew all the same").into());
    }
    Ok(())
}

async fn rebuild(config: &Config, until: Millis, out: &mut impl Write) -> Result<Ended, CommandError> {
    let replacement = Replacement::begin(&config.state_dir)?;
    let mut ended = Ended::Well;
    // Told when all of it is in its place: before that nothing has come of it.
    let mut told = Vec::new();
    for route in &config.pipelines {
        let name = format!("{}/{}", route.input, route.output);
        let of_bucket =
            config.inputs.get(&route.input).is_some_and(|input| input.kind.name == bucket::KIND.name);
        if !of_bucket {
            match replacement.take_over(&name) {
                Ok(count) => told.push(format!("{name}: {count} positions taken over")),
                Err(error) => told.push(format!("{name}: begins anew: {error}")),
            }
            continue;
        }
        let metrics = read_to_nowhere(config, route, Arc::new(replacement.state()), until).await?;
        let (objects, dead) = (metrics.objects_read.get(), metrics.dead_letters());
        told.push(format!(
            "{name}: {objects} objects, {} lines taken for delivered",
            metrics.records_read.get()
        ));
        if dead > 0 {
            told.push(format!(
                "{name}: {dead} of the lines can be no events and are dead letters, again or for the first time"
            ));
            ended = Ended::WithRest;
        }
    }
    let aside = replacement.finish(&format!("before-{}", app::now().get() / 1000))?;
    for line in told {
        writeln!(out, "{line}")?;
    }
    if let Some(aside) = aside {
        writeln!(out, "the old state is kept as {}; remove it when all is well", aside.display())?;
    }
    Ok(ended)
}

/// Runs a pipeline that is as it is configured, but for its output.
async fn read_to_nowhere(
    config: &Config,
    route: &Pipeline,
    state: Arc<dyn State>,
    until: Millis,
) -> Result<PipelineMetrics, CommandError> {
    let name = format!("{}/{}", route.input, route.output);
    let budget = Budget::new(config.memory.get());
    let context = InputContext {
        name: route.input.clone(),
        resume: Resume::new(Arc::clone(&state), &name),
        budget: budget.clone(),
        once: true,
        until: Some(until),
        shared: Shared::default(),
        base: PathBuf::new(),
        clock: app::now,
    };
    let input = config.build_input(&route.input, context)?.into();
    let metrics = Metrics::new()?.pipeline(&route.input, &route.output);
    let source = Source { name: &name, input, budget, state, once: true };
    let mut pipeline = app::pipeline(config, &route.output, source, &config.state_dir, metrics.clone())?;
    pipeline.output = Arc::new(Nowhere);
    pipeline.encoding = Encoding::None;
    pipeline.run(CancellationToken::new()).await?;
    Ok(metrics)
}
