//! The body of a blob as a stream that never ends early without saying so.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use reqwest::Response;

use crate::{UpstreamError, error::host_and_port, transport::Transport};

/// The pieces of a body. When `expected` bytes are known, fewer or more are an error.
pub(crate) fn pieces(
    transport: Arc<Transport>,
    response: Response,
    expected: Option<u64>,
) -> BoxStream<'static, Result<Bytes, UpstreamError>> {
    stream::try_unfold((transport, response, expected), |(transport, mut response, left)| async move {
        let piece = transport.next_piece(&mut response).await.map_err(|failure| failure.error)?;
        match (piece, left) {
            (Some(piece), None) => Ok(Some((piece, (transport, response, None)))),
            (Some(piece), Some(left)) => {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                let left = left.checked_sub(length).ok_or_else(|| {
                    UpstreamError::invalid_response("body longer than its announced length")
                })?;
                Ok(Some((piece, (transport, response, Some(left)))))
            }
            (None, None | Some(0)) => Ok(None),
            (None, Some(left)) => {
                let host = host_and_port(response.url());
                Err(UpstreamError::unreachable(format!("{host}: body ended {left} bytes early")))
            }
        }
    })
    .boxed()
}
