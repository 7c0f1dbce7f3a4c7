//! A request to a source, and its answer.

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use oci_types::Digest;
use upstream_client::{FirstByteLimit, UpstreamError};

use super::byte_length;
use crate::read_mode::ReadMode;

/// Which bytes of a blob to request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceRequest<'a> {
    pub(crate) digest: &'a Digest,
    /// The first byte.
    pub(crate) start: u64,
    /// The end, exclusive; `None` for the end of the blob.
    pub(crate) end: Option<u64>,
    /// The size of the blob, where it is known.
    pub(crate) size: Option<u64>,
    pub(crate) mode: ReadMode,
    /// The time limit of the response of an upstream.
    pub(crate) first_byte: FirstByteLimit,
}

/// The answer of a source. Its bytes are not verified.
pub(crate) struct SourceBody {
    /// The size of the blob, where the source states it.
    pub(crate) size: Option<u64>,
    /// The size is the length of a response without a range, which ends early if it is interrupted.
    pub(crate) is_length: bool,
    /// The number of bytes before the requested start: a source without support for ranges sends the blob from its
    /// beginning.
    pub(super) skip: u64,
    /// The bytes, which may go beyond the requested end.
    pub(super) stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

impl SourceBody {
    /// Whether the source sends the blob from its beginning in place of the requested range.
    pub(crate) fn ignores_range(&self) -> bool {
        self.skip > 0
    }

    /// The bytes from the requested start on. `received` is called with the number of bytes of every piece, including
    /// those before the start.
    pub(crate) fn into_stream(
        self,
        received: impl Fn(u64) + Send + 'static,
    ) -> BoxStream<'static, Result<Bytes, UpstreamError>> {
        let mut skip = self.skip;
        let rest = self.stream.filter_map(move |piece| {
            let rest = piece.map(|mut piece| {
                received(byte_length(&piece));
                let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                skip -= byte_length(&piece.split_to(skipped));
                piece
            });
            std::future::ready(Some(rest).filter(|rest| !rest.as_ref().is_ok_and(Bytes::is_empty)))
        });
        rest.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use futures::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn the_bytes_before_the_requested_start_are_counted_and_skipped() {
        for (skip, expected) in [(0, "abcdef"), (1, "bcdef"), (3, "def"), (5, "f"), (6, ""), (9, "")] {
            let pieces = ["ab", "cde", "f"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
            let stream = futures::stream::iter(pieces).boxed();
            let body = SourceBody { size: None, is_length: false, skip, stream };
            let received = Arc::new(AtomicU64::new(0));
            let counter = Arc::clone(&received);
            let rest = body.into_stream(move |bytes| {
                counter.fetch_add(bytes, Ordering::Relaxed);
            });
            let rest: Vec<Bytes> = rest.try_collect().await.unwrap();
            assert!(rest.iter().all(|piece| !piece.is_empty()));
            assert_eq!(rest.concat(), expected.as_bytes(), "{skip}");
            assert_eq!(received.load(Ordering::Relaxed), 6);
        }
    }
}
