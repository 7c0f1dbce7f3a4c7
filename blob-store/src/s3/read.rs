//! Streaming reads of an object, with retries.

use std::{ops::Range, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::path::Path;
use tokio::{
    runtime::Handle,
    sync::mpsc::Sender,
    time::{sleep, timeout},
};

use super::bucket::Bucket;
use crate::{StoreError, request_error::RequestError, stream::spawn_on_first_poll};

/// Chunks that are buffered for each reader. Two keep the connection busy; more cost memory for every reader.
const CHUNK_BUFFER: usize = 2;

/// Delay before a retry after a request that returned bytes, and the first delay after requests
/// that returned none.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Back-off after requests that returned no bytes.
const RETRY_BACKOFF: ExponentialBuilder =
    ExponentialBuilder::new().with_min_delay(MIN_RETRY_DELAY).with_max_times(3).with_jitter();

/// Streams a range of an object at the pace of the reader. A broken request is resumed at the
/// offset that it reached. The first request is sent when the stream is polled, and a request ends
/// when the stream is dropped.
pub(super) fn stream(
    runtime: &Handle,
    bucket: Arc<Bucket>,
    key: Path,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let runtime = runtime.clone();
    spawn_on_first_poll(CHUNK_BUFFER, move |sender| {
        runtime.spawn(Read { bucket, key, remaining: range, sender }.run());
    })
}

struct Read {
    bucket: Arc<Bucket>,
    key: Path,
    remaining: Range<u64>,
    sender: Sender<Result<Bytes, StoreError>>,
}

impl Read {
    async fn run(mut self) {
        let mut backoff = RETRY_BACKOFF.build();
        // Ends when the retries without a byte are used up, or the stream is dropped.
        loop {
            let offset = self.remaining.start;
            let sender = self.sender.clone();
            let result = tokio::select! {
                result = self.request() => result,
                () = sender.closed() => return,
            };
            let Err(error) = result else { return };
            let delay = if self.remaining.start > offset {
                backoff = RETRY_BACKOFF.build();
                Some(MIN_RETRY_DELAY)
            } else {
                backoff.next()
            };
            let Some(delay) = delay.filter(|_| error.is_retryable()) else {
                // The stream may have been dropped.
                let _ = self.sender.send(Err(error.context("read", &self.key))).await;
                return;
            };
            tracing::debug!(key = %self.key, offset = self.remaining.start, %error, "read from the object store will be continued");
            sleep(delay).await;
        }
    }

    /// Sends one request and forwards its bytes. Returns when all bytes are forwarded, or the
    /// stream is dropped.
    async fn request(&mut self) -> Result<(), RequestError> {
        if self.remaining.is_empty() {
            return Ok(());
        }
        let mut chunks = self.bucket.get_range(&self.key, self.remaining.clone()).await?;
        while !self.remaining.is_empty() {
            let chunk = timeout(self.bucket.timeouts().read, chunks.next()).await;
            let chunk = chunk.map_err(|_| RequestError::timed_out())?;
            let mut chunk = chunk.ok_or_else(RequestError::truncated)??;
            chunk.truncate(usize::try_from(self.remaining.end - self.remaining.start).unwrap_or(usize::MAX));
            self.remaining.start += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if self.sender.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
