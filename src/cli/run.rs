//! `auditferry run`.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::summary::{self, ProgressBar};
use super::{CommandError, ConfigFiles, Ended, runtime};
use crate::app::{App, Notify, Service};
use crate::config::Config;
use crate::server::Server;

pub(super) fn run(config: Config, files: &ConfigFiles, once: bool) -> Result<Ended, CommandError> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if once && config.is_empty() {
        return Err("there is nothing to ship: no input and no output is configured".into());
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(ship(config, files.clone(), once));
    // Blocking file reads of a pipeline that was given up may still run: they do no harm, do not wait for them.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn ship(config: Config, files: ConfigFiles, once: bool) -> Result<Ended, CommandError> {
    // Before all else: a signal that nobody has asked for ends the process.
    let signals = Signals::new()?;
    let notify = Notify::from_environment();
    let app = App::build(&config, once)?;
    let stop = CancellationToken::new();
    let mut services = JoinSet::new();
    // A single run is over soon, and may be started beside a service that has the port.
    if let (Some(address), false) = (config.server.listen, once) {
        let server = Server::bind(address, config.server.token.clone(), &app).await?;
        if let Some(address) = server.address() {
            tracing::info!("listening on http://{address}");
        }
        let serve_until = stop.clone();
        services.spawn(async move {
            if let Err(error) = server.run(serve_until).await {
                tracing::error!("the status server ended: {error}");
            }
        });
    }
    // A reload that comes while another is under way is made after it; more than that are the same.
    let (reload, reloads) = mpsc::channel(1);
    let grace = config.shutdown_grace.0;
    services.spawn(signals.run(stop.clone(), grace, notify.clone(), reload));
    let progress = once.then(|| ProgressBar::start(&app)).flatten();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pipelines = app.routes.len(), "started");
    let reread = Box::new(move || files.load());
    let view = app.view();
    let mut service = Service::new(app, config, reread, stop.clone(), notify.clone());
    notify.ready(&view.borrow());
    services.spawn(notify.run(view, stop));
    let result = service.run(reloads).await;
    drop(progress);
    services.abort_all();
    if once {
        summary::print(&service.app)?;
    }
    match result {
        Ok(()) => {}
        Err(errors) if once => return Err(errors.into()),
        // What a restart may well put right, unlike a wrong configuration.
        Err(errors) => return Ok(Ended::Failed(errors)),
    }
    tracing::info!("stopped");
    let dead_letters: u64 = service.app.routes.iter().map(|route| route.metrics.dead_letters()).sum();
    Ok(if once && dead_letters > 0 { Ended::WithRest } else { Ended::Well })
}

/// SIGTERM and SIGINT stop in order, a second one at once; SIGHUP reloads the configuration and reopens files that
/// logrotate moved.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn run(
        mut self,
        stop: CancellationToken,
        grace: Duration,
        notify: Notify,
        reload: mpsc::Sender<()>,
    ) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hang_up.recv() => {
                    // Full: one that comes after this call is waiting already.
                    let _ = reload.try_send(());
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
            notify.stopping(grace);
            stop.cancel();
        }
    }
}
