//! The bodies of responses.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use reqwest::Response;
use tokio::time::timeout;

use crate::{
    UpstreamError,
    admission::MemoryPermit,
    error::{AttemptError, host_and_port},
    transport::Transport,
    verdict::content_length,
};

impl Transport {
    /// Reads a whole body of at most `limit` bytes, when there is memory for it.
    pub(crate) async fn read_body(
        &self,
        mut response: Response,
        limit: usize,
    ) -> Result<(Bytes, MemoryPermit), AttemptError> {
        let announced = content_length(response.headers()).and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(UpstreamError::TooLarge.into());
        }
        let memory =
            self.admission.memory(u64::try_from(announced.unwrap_or(limit)).unwrap_or(u64::MAX)).await;
        let mut body = BytesMut::with_capacity(announced.unwrap_or_default());
        while let Some(chunk) = self.next_chunk(&mut response).await? {
            if body.len().saturating_add(chunk.len()) > limit {
                return Err(UpstreamError::TooLarge.into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body.freeze(), memory))
    }

    /// The next chunk of a body, within the read timeout. The timeout does not run between two calls.
    async fn next_chunk(&self, response: &mut Response) -> Result<Option<Bytes>, AttemptError> {
        let chunk = match timeout(self.config.read_timeout, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| AttemptError::from_transport(error, response.url(), None))?,
            Err(_) => return Err(UpstreamError::Timeout.into()),
        };
        if let Some(chunk) = &chunk {
            self.observer.bytes_received(&self.config.name, byte_count(chunk));
        }
        Ok(chunk)
    }
}

/// The chunks of a body of `length` bytes, where the length is known: a shorter or longer body ends with an error.
pub(crate) fn stream(
    transport: Arc<Transport>,
    response: Response,
    length: Option<u64>,
) -> BoxStream<'static, Result<Bytes, UpstreamError>> {
    stream::try_unfold((transport, response, length), |(transport, mut response, remaining)| async move {
        let chunk = transport.next_chunk(&mut response).await.map_err(|failed| failed.error)?;
        match (chunk, remaining) {
            (Some(chunk), None) => Ok(Some((chunk, (transport, response, None)))),
            (Some(chunk), Some(remaining)) => {
                let remaining = remaining.checked_sub(byte_count(&chunk)).ok_or_else(|| {
                    UpstreamError::invalid_response("body longer than its announced length")
                })?;
                Ok(Some((chunk, (transport, response, Some(remaining)))))
            }
            (None, None | Some(0)) => Ok(None),
            (None, Some(remaining)) => {
                let host = host_and_port(response.url());
                Err(UpstreamError::unreachable(format!("{host}: body ended {remaining} bytes early")))
            }
        }
    })
    .boxed()
}

fn byte_count(chunk: &Bytes) -> u64 {
    u64::try_from(chunk.len()).unwrap_or(u64::MAX)
}
