//! Streams that a task produces.

use futures::{
    StreamExt,
    stream::{BoxStream, once, unfold},
};
use tokio::sync::mpsc::{Sender, channel};

/// A stream through a channel of `capacity` items. `spawn` starts the producer when the stream is
/// first polled, so a stream that is never polled costs nothing. The producer must end when the
/// channel is closed.
pub(crate) fn spawn_on_first_poll<T: Send + 'static>(
    capacity: usize,
    spawn: impl FnOnce(Sender<T>) + Send + 'static,
) -> BoxStream<'static, T> {
    once(async move {
        let (sender, receiver) = channel(capacity);
        spawn(sender);
        unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)))
    })
    .flatten()
    .boxed()
}
