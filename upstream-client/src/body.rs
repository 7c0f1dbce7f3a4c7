//! The body of a blob as a stream that never ends early without saying so.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, header};
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
                let left = left
                    .checked_sub(length)
                    .ok_or_else(|| UpstreamError::BadAnswer("a body longer than its length".to_owned()))?;
                Ok(Some((piece, (transport, response, Some(left)))))
            }
            (None, None | Some(0)) => Ok(None),
            (None, Some(left)) => {
                let host = host_and_port(response.url());
                Err(UpstreamError::Unreachable(format!("{host}: the body ended {left} bytes early")))
            }
        }
    })
    .boxed()
}

/// A `Content-Range` (RFC 9110, section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    /// First and last byte; none when the range could not be satisfied.
    pub(crate) window: Option<(u64, u64)>,
    /// The size of the whole, if upstream knows it.
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim();
        let (window, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let total = match total.trim() {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        let window = match window.trim() {
            "*" => None,
            window => {
                let (first, last) = window.split_once('-')?;
                let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
                if last < first || total.is_some_and(|total| last >= total) {
                    return None;
                }
                Some((first, last))
            }
        };
        Some(Self { window, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<ContentRange> {
        ContentRange::read(&HeaderMap::from_iter([(header::CONTENT_RANGE, text.parse().unwrap())]))
    }

    #[test]
    fn a_content_range_is_read() {
        assert_eq!(read("bytes 0-0/7"), Some(ContentRange { window: Some((0, 0)), total: Some(7) }));
        assert_eq!(read("bytes 5-9/*"), Some(ContentRange { window: Some((5, 9)), total: None }));
        assert_eq!(read("bytes */7"), Some(ContentRange { window: None, total: Some(7) }));
    }

    #[test]
    fn a_content_range_that_cannot_be_is_none() {
        for text in [
            "",
            "bytes",
            "bytes 0-0",
            "bytes 5-4/9",
            "bytes 0-9/9",
            "items 0-1/9",
            "bytes -1/9",
            "bytes a-b/c",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(ContentRange::read(&HeaderMap::new()), None);
    }
}
