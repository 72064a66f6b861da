//! Tells systemd, or whoever started us and set `NOTIFY_SOCKET`, how far we are.
//!
//! The crate `sd-notify` writes the messages and reads the clock; the socket is our own, since that crate connects to no
//! abstract one (`@…`), which container runtimes hand out.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::View;

/// Longest time between two looks at the status.
const LOOK: Duration = Duration::from_secs(5);
/// A pipeline turns each second. One that has not for so long is strained, and for a whole watchdog interval is stuck.
const SILENCE: Duration = Duration::from_secs(2);
/// More than the pipelines' grace period takes: the last commit, leaving a group, the summary.
const AFTERWARDS: Duration = Duration::from_secs(15);

/// The one to tell, if there is one.
#[derive(Clone, Debug)]
pub struct Notify {
    socket: Option<Arc<OsStr>>,
    watchdog: Option<Duration>,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug)]
pub(super) enum State<'a> {
    Ready,
    Reloading,
    Stopping,
    Alive,
    Status(&'a str),
    MoreTime(Duration),
}

impl Notify {
    /// Whom the environment names.
    pub fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        Self { socket: socket.map(|socket: OsString| socket.into()), watchdog: sd_notify::watchdog_enabled() }
    }

    /// Says that the pipelines run.
    pub fn ready(&self, view: &View) {
        self.tell(&[State::Ready, State::Status(&view.summary())]);
    }

    /// Says that a stop begins. To be told before it does: a service with nothing under way ends at once.
    pub fn stopping(&self, grace: Duration) {
        self.tell(&[State::Stopping, State::MoreTime(grace + AFTERWARDS), State::Status("stopping")]);
    }

    /// Tells all of it at once. What nobody hears is no error: we run without a service manager too.
    pub(super) fn tell(&self, states: &[State<'_>]) {
        let Some(socket) = &self.socket else { return };
        let mut message = String::new();
        for state in states {
            for state in state.lines() {
                // Writing to a `String` cannot fail.
                let _ = writeln!(message, "{state}");
            }
        }
        if let Err(error) = send(socket, message.as_bytes()) {
            tracing::debug!("cannot tell the service manager: {error}");
        }
    }

    /// Tells what changes until the stop, and feeds the watchdog while the pipelines turn.
    pub async fn run(self, view: watch::Receiver<View>, stop: CancellationToken) {
        if self.socket.is_none() {
            return;
        }
        let interval = self.watchdog.map_or(LOOK, |watchdog| (watchdog / 2).min(LOOK));
        let (mut told, mut stuck) = (view.borrow().summary(), None);
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => break,
            }
            let summary = view.borrow().summary();
            if summary != told {
                self.tell(&[State::Status(&summary)]);
                told = summary;
            }
            stuck = self.feed(&view, stuck).await;
        }
        while self.watchdog.is_some() {
            tokio::time::sleep(interval).await;
            stuck = self.feed(&view, stuck).await;
        }
    }

    /// Feeds the watchdog if all is alive; else says once what is not.
    async fn feed(&self, view: &watch::Receiver<View>, stuck: Option<String>) -> Option<String> {
        let watchdog = self.watchdog?;
        let now = alive(view, watchdog / 2).await.err();
        match &now {
            None => self.tell(&[State::Alive]),
            Some(what) if stuck.is_none() => {
                tracing::warn!("not telling the watchdog that all is well: {what}");
            }
            Some(_) => {}
        }
        now
    }
}

/// Whether blocking work gets a thread and every pipeline turns.
async fn alive(view: &watch::Receiver<View>, patience: Duration) -> Result<(), String> {
    let probe = tokio::time::timeout(patience, tokio::task::spawn_blocking(|| ()));
    if probe.await.is_err() {
        return Err(format!("no thread for encoding came free within {} s", patience.as_secs()));
    }
    let view = view.borrow();
    let limit = patience.max(SILENCE);
    let silent = |status: &crate::status::Status| status.silent_for().is_some_and(|silent| silent > limit);
    match view.routes.iter().find(|route| silent(&route.status)) {
        Some(route) => {
            Err(format!("{}/{} has not moved for {} s", route.input, route.output, limit.as_secs()))
        }
        None => Ok(()),
    }
}

impl<'a> State<'a> {
    fn lines(self) -> Vec<NotifyState<'a>> {
        match self {
            Self::Ready => vec![NotifyState::Ready],
            Self::Stopping => vec![NotifyState::Stopping],
            Self::Alive => vec![NotifyState::Watchdog],
            // For Type=notify-reload, which tells this reload from earlier ones by the time.
            Self::Reloading => [Some(NotifyState::Reloading), NotifyState::monotonic_usec_now().ok()]
                .into_iter()
                .flatten()
                .collect(),
            // A line of its own would be another message.
            Self::Status(text) => vec![NotifyState::Status(text.lines().next().unwrap_or_default())],
            Self::MoreTime(time) => {
                let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
                vec![NotifyState::ExtendTimeoutUsec(microseconds)]
            }
        }
    }
}

fn send(socket: &OsStr, message: &[u8]) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    // A service manager that does not read must not stop us.
    datagram.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return datagram.send_to_addr(message, &address).map(|_| ());
    }
    datagram.send_to(message, socket).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ShownRoute;
    use crate::metrics::Metrics;
    use crate::status::{Phase, Status};

    fn told(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        while let Ok(length) = socket.recv(&mut buffer) {
            all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        all
    }

    /// A running pipeline, seen from outside.
    fn view(status: &Status) -> watch::Sender<View> {
        status.enter(Phase::Running);
        let metrics = Metrics::new().unwrap().pipeline("in", "out");
        let (input, output) = ("in".to_owned(), "out".to_owned());
        let recent = crate::recent::RecentEvents::default();
        let route = ShownRoute { input, output, metrics, status: status.clone(), recent };
        watch::Sender::new(View { routes: vec![route], ..View::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_while_the_pipelines_turn_and_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let notify = Notify {
            socket: Some(directory.path().join("notify").as_os_str().into()),
            watchdog: Some(Duration::from_secs(20)),
        };
        let status = Status::default();
        let view = view(&status);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(notify.run(view.subscribe(), CancellationToken::new()));
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            status.beat();
        }
        let fed = told(&socket).iter().filter(|message| *message == "WATCHDOG=1\n").count();
        assert!((10..=12).contains(&fed), "{fed}");
        // Stuck: after ten seconds of silence no word any more.
        tokio::time::sleep(Duration::from_secs(12)).await;
        told(&socket);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(told(&socket), [""; 0]);
        status.beat();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(told(&socket), ["WATCHDOG=1\n"]);
    }

    #[test]
    fn an_abstract_socket_is_told_too_and_a_status_is_one_line() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("auditferry-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let notify = Notify { socket: Some(OsString::from(format!("@{name}")).into()), watchdog: None };
        notify.tell(&[State::Status("one\nREADY=1"), State::MoreTime(Duration::from_secs(2))]);
        assert_eq!(told(&socket), ["STATUS=one\nEXTEND_TIMEOUT_USEC=2000000\n"]);
        notify.tell(&[State::Reloading]);
        let told = told(&socket).concat();
        let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.trim().parse::<u64>().unwrap() > 0);
    }
}
