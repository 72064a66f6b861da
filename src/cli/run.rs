//! `auditferry run`.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::summary::{self, ProgressBar};
use super::{CommandError, Ended, runtime};
use crate::app::App;
use crate::config::Config;
use crate::pipeline::PipelineError;
use crate::server::Server;

pub(super) fn run(config: &Config, once: bool) -> Result<Ended, CommandError> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(ship(config, once));
    // Blocking file reads of a pipeline that was given up may still run: they do no harm, do not wait for them.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn ship(config: &Config, once: bool) -> Result<Ended, CommandError> {
    let mut app = App::build(config, once)?;
    let stop = CancellationToken::new();
    let mut services = JoinSet::new();
    // A single run is over soon, and may be started beside a service that has the port.
    if let (Some(address), false) = (config.server.listen, once) {
        let server = Server::bind(address, config.server.token.clone(), &app).await?;
        if let Some(address) = server.address() {
            tracing::info!("listening on http://{address}");
        }
        services.spawn(server.run(stop.clone()));
    }
    services.spawn(signals(stop.clone(), config.shutdown_grace.0, reopeners(&app)));
    let progress = once.then(|| ProgressBar::start(&app)).flatten();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pipelines = app.routes.len(), "started");
    let mut pipelines = app.start(&stop);
    let result = join(&mut pipelines, &stop, once).await;
    drop(progress);
    services.abort_all();
    if once {
        summary::print(&app)?;
    }
    result?;
    tracing::info!("stopped");
    let dead_letters: u64 = app.routes.iter().map(|route| route.metrics.dead_letters()).sum();
    Ok(if once && dead_letters > 0 { Ended::WithRest } else { Ended::Well })
}

/// Waits for all pipelines. With `--once` one that gives up does not stop the others; all errors are told.
async fn join(
    pipelines: &mut JoinSet<Result<(), PipelineError>>,
    stop: &CancellationToken,
    once: bool,
) -> Result<(), CommandError> {
    let mut errors = Vec::new();
    while let Some(ended) = pipelines.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            // The rest is read again at the next start: an orderly stop all the same.
            Ok(Err(error @ PipelineError::Unfinished { .. })) => tracing::warn!("{error}"),
            Ok(Err(error)) => errors.push(error.to_string()),
            Err(error) => {
                errors.push(format!("a pipeline failed: {error}; this is a defect, please report it"));
            }
        }
        if !errors.is_empty() && !once {
            stop.cancel();
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n").into()) }
}

type Reopen = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn reopeners(app: &App) -> impl Fn() -> Vec<Reopen> + Send + 'static {
    let outputs: Vec<_> = app.routes.iter().map(|route| std::sync::Arc::clone(&route.output)).collect();
    move || {
        let reopen = |output: &std::sync::Arc<dyn crate::output::Output>| {
            let output = std::sync::Arc::clone(output);
            Box::pin(async move { output.reopen().await }) as Reopen
        };
        outputs.iter().map(reopen).collect()
    }
}

/// SIGTERM and SIGINT stop in order, a second one at once; SIGHUP reopens files that logrotate moved.
#[cfg(unix)]
async fn signals(
    stop: CancellationToken,
    grace: Duration,
    reopen: impl Fn() -> Vec<Reopen>,
) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => {
                tracing::info!("reopening output files");
                for reopened in reopen() {
                    reopened.await;
                }
                continue;
            }
        }
        if stop.is_cancelled() {
            tracing::warn!("stopped at once; what was under way is read again at the next start");
            std::process::exit(130);
        }
        tracing::info!(
            "stopping: delivering what is under way, for {} at most; once more to stop at once",
            humantime::format_duration(grace)
        );
        stop.cancel();
    }
}

#[cfg(not(unix))]
async fn signals(
    stop: CancellationToken,
    _: Period,
    _reopen: impl Fn() -> Vec<Reopen>,
) -> std::io::Result<()> {
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    Ok(())
}
