//! Groups the pieces of a body into batches for one write each.

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use upstream_client::UpstreamError;

use crate::source::byte_length;

/// The pieces of a body, in batches.
pub(super) struct Batches {
    stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
    /// The rest of a piece that did not fit into the last batch.
    rest: Option<Bytes>,
}

impl Batches {
    pub(super) fn new(stream: BoxStream<'static, Result<Bytes, UpstreamError>>) -> Self {
        Self { stream, rest: None }
    }

    /// Waits for the next piece, and adds the pieces that have already arrived, up to `limit` bytes. Empty at the end.
    pub(super) async fn next(&mut self, limit: u64) -> Result<Vec<Bytes>, UpstreamError> {
        let mut batch = Vec::new();
        let mut room = limit;
        while room > 0 {
            let polled = match self.rest.take() {
                Some(rest) => Some(Some(Ok(rest))),
                None if batch.is_empty() => Some(self.stream.next().await),
                None => self.stream.next().now_or_never(),
            };
            match polled {
                None | Some(None) => break,
                Some(Some(Err(error))) if batch.is_empty() => return Err(error),
                // The bytes before the error are written first; the next call returns the error.
                Some(Some(Err(error))) => {
                    self.stream = futures::stream::once(async { Err(error) }).boxed();
                    break;
                }
                Some(Some(Ok(mut piece))) => {
                    if byte_length(&piece) > room {
                        self.rest = Some(piece.split_off(usize::try_from(room).unwrap_or(piece.len())));
                    }
                    if !piece.is_empty() {
                        room -= byte_length(&piece);
                        batch.push(piece);
                    }
                }
            }
        }
        Ok(batch)
    }

    /// Whether further bytes have already arrived.
    pub(super) async fn has_more(&mut self) -> bool {
        self.rest.is_some()
            || matches!(self.stream.next().now_or_never(), Some(Some(Ok(piece))) if !piece.is_empty())
    }
}
