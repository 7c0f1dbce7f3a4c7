//! Bytes of an object, streamed through.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::path::Path;
use tokio::{
    runtime::Handle,
    sync::mpsc::{Receiver, Sender, channel},
    time::{sleep, timeout},
};

use super::{bucket::Objects, error::Failure};
use crate::StoreError;

/// How many chunks may wait for the reader: enough that the next is there when one was sent, and no more,
/// because each reader has its own.
const AHEAD: usize = 2;

/// How often a read is tried again in which not one byte came.
const ATTEMPTS: u32 = 4;

/// Streams `range` of an object. A connection that breaks is made again from the offset that was reached. Who
/// drops the stream ends the request.
pub(super) fn stream(
    runtime: &Handle,
    objects: Arc<Objects>,
    key: Path,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let (sender, receiver) = channel(AHEAD);
    let read = Read { objects, key, left: range, sender };
    runtime.spawn(read.run());
    let next = |mut receiver: Receiver<Chunk>| async move { Some((receiver.recv().await?, receiver)) };
    futures::stream::unfold(receiver, next).boxed()
}

type Chunk = Result<Bytes, StoreError>;

struct Read {
    objects: Arc<Objects>,
    key: Path,
    /// What is still to be read.
    left: Range<u64>,
    sender: Sender<Chunk>,
}

/// How one request ended.
enum Ended {
    /// All bytes were passed on, or nobody reads any more.
    Done,
    Broken(Failure),
}

impl Read {
    async fn run(mut self) {
        let mut fruitless = 0;
        let mut pause = Duration::from_millis(50);
        loop {
            let before = self.left.start;
            let sender = self.sender.clone();
            let ended = tokio::select! {
                ended = self.request() => ended,
                () = sender.closed() => Ended::Done,
            };
            let Ended::Broken(failure) = ended else { return };
            fruitless = if self.left.start > before { 0 } else { fruitless + 1 };
            if !matches!(failure, Failure::Away(_)) || fruitless == ATTEMPTS {
                let error = failure.during("read", self.key.as_ref());
                // Nobody is left to be told when this fails.
                let _ = self.sender.send(Err(error)).await;
                return;
            }
            tracing::debug!(key = %self.key, offset = self.left.start, "a read from the object store broke: {failure:?}");
            sleep(pause).await;
            pause = if fruitless == 0 { Duration::from_millis(50) } else { pause * 2 };
        }
    }

    async fn request(&mut self) -> Ended {
        if self.left.is_empty() {
            return Ended::Done;
        }
        let mut chunks = match self.objects.get(&self.key, self.left.clone()).await {
            Ok(chunks) => chunks,
            Err(failure) => return Ended::Broken(failure),
        };
        while !self.left.is_empty() {
            match timeout(self.objects.timeouts().read, chunks.next()).await {
                Err(_) => return Ended::Broken(Failure::too_late()),
                Ok(None) => return Ended::Broken(Failure::Away("the object ended too early".to_owned())),
                Ok(Some(Err(failure))) => return Ended::Broken(failure),
                Ok(Some(Ok(mut chunk))) => {
                    let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
                    chunk.truncate(left);
                    self.left.start += u64::try_from(chunk.len()).unwrap_or(0);
                    if self.sender.send(Ok(chunk)).await.is_err() {
                        return Ended::Done;
                    }
                }
            }
        }
        Ended::Done
    }
}
