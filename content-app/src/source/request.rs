//! A request to a source, and its answer.

use bytes::Bytes;
use futures::stream::BoxStream;
use oci_types::Digest;
use upstream_client::UpstreamError;

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
}

/// The answer of a source. Its bytes are not verified.
pub(crate) struct SourceBody {
    /// The size of the blob, where the source states it.
    pub(crate) size: Option<u64>,
    /// The size is the length of a response without a range, which ends early if it is interrupted.
    pub(crate) is_length: bool,
    /// The bytes from the requested start on. They may go beyond the requested end.
    pub(crate) stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
}
