//! Work that keeps a core busy, off the threads that serve the network.

use futures::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinError;

/// What comes through a channel, to be worked on.
pub(super) fn stream_of<T>(channel: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures::stream::unfold(channel, |mut channel| async { Some((channel.recv().await?, channel)) })
}

/// Does it on a thread of its own. In a test with a single thread it is done there: what happens then happens in the
/// same order each time, and time that is paused does not wait for another thread.
pub(super) async fn on_a_core<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(test)]
    if tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
