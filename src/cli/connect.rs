//! `auditferry check --connect`: asks every source and collector whether it would work with us.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::Ended;
use crate::budget::Budget;
use crate::component::Probe;
use crate::config::Config;
use crate::input::{InputContext, Resume, Shared};
use crate::state::none::NoState;

/// Longest wait for one of them: several requests, each with a limit of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks all of them at once, and prints a line for each.
pub(super) async fn run(config: &Config, out: &mut impl Write) -> io::Result<Ended> {
    writeln!(out, "connections:")?;
    let inputs = config.inputs.iter().map(|(name, settings)| async move {
        (name, settings.kind.name, patiently(input(config, name)).await)
    });
    let outputs = config.outputs.iter().map(|(name, settings)| async move {
        (name, settings.kind.name, patiently(output(config, name)).await)
    });
    let (inputs, outputs) = futures::join!(join_all(inputs), join_all(outputs));
    let mut ended = Ended::Well;
    for (name, kind, probe) in inputs.into_iter().chain(outputs) {
        match probe {
            Probe::Ready(seen) => writeln!(out, "  {name} ({kind}): ok: {seen}")?,
            Probe::Unknown => {
                writeln!(out, "  {name} ({kind}): cannot be asked; what it does shows when it runs")?;
            }
            Probe::Failed(why) => {
                ended = Ended::WithRest;
                writeln!(out, "  {name} ({kind}): FAILED: {why}")?;
            }
        }
    }
    Ok(ended)
}

async fn patiently(probe: impl Future<Output = Probe>) -> Probe {
    tokio::time::timeout(PATIENCE, probe).await.unwrap_or_else(|_| {
        Probe::Failed(format!(
            "no answer within {} s; check the address and what lies between",
            PATIENCE.as_secs()
        ))
    })
}

async fn input(config: &Config, name: &str) -> Probe {
    let context = InputContext {
        name: name.to_owned(),
        resume: Resume::new(Arc::new(NoState), name),
        shared: Shared::default(),
        budget: Budget::new(config.memory.get()),
        once: true,
        until: None,
        base: PathBuf::new(),
        clock: crate::app::now,
    };
    match config.build_input(name, context) {
        Ok(input) => input.probe().await,
        Err(error) => Probe::Failed(error.to_string()),
    }
}

async fn output(config: &Config, name: &str) -> Probe {
    match config.build_output(name) {
        Ok(output) => output.probe().await,
        Err(error) => Probe::Failed(error.to_string()),
    }
}
