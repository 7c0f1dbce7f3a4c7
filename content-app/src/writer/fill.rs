//! Streams of a range of a fill while its bytes arrive.

use std::{ops::Range, pin::pin, sync::Arc, time::Duration};

use actix_web::web::Bytes;
use blob_store::Partial;
use futures::{Stream, stream::try_unfold};
use oci_types::Hasher;
use tokio::time::timeout;

use super::file::read;
use crate::{
    error::FillError,
    fills::{Bypass, Reader, hash_prefix, linger},
    read_mode::ReadMode,
    source::byte_length,
    state::State,
};

/// A client's range of a fill. Continues from an upstream without storing when the disk has no space for the rest.
///
/// # Errors
/// The fill failed, its bytes do not match the digest, or the next byte did not arrive within `client_wait`. The connection
/// is then aborted, so that no client treats the body as complete.
pub(crate) fn client_stream(
    state: Arc<State>,
    reader: Reader,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, FillError>> {
    let (counted, client_wait) = (state.metrics.reader(), state.config.node.client_wait);
    let (fill, mode) = (Arc::clone(reader.fill()), reader.mode());
    let stream = FillStream::new(state, reader, range);
    try_unfold((ClientStream::Fill(stream), counted), move |(stream, counted)| {
        let fill = Arc::clone(&fill);
        async move {
            let mut next = pin!(next_for_client(stream));
            let (chunk, stream) = match timeout(client_wait, &mut next).await {
                Ok(next) => next?,
                Err(_elapsed) => {
                    linger(fill, mode);
                    return Err(FillError::ClientWait);
                }
            };
            Ok(chunk.map(|chunk| (chunk, (stream, counted))))
        }
    })
}

async fn next_for_client(stream: ClientStream) -> Result<(Option<Bytes>, ClientStream), FillError> {
    match stream {
        ClientStream::Fill(stream) => stream.next_or_bypass().await,
        ClientStream::Bypass(mut bypass) => Ok((bypass.next().await?, ClientStream::Bypass(bypass))),
    }
}

/// Another node's range of a fill.
///
/// # Errors
/// As [`client_stream`], and no space.
pub(crate) fn peer_stream(
    state: Arc<State>,
    reader: Reader,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, FillError>> {
    try_unfold(FillStream::new(state, reader, range), |mut stream| async move {
        Ok(stream.next().await?.map(|chunk| (chunk, stream)))
    })
}

/// A client's range from an upstream, without storing.
///
/// # Errors
/// As [`Bypass::next`]; the next byte did not arrive within `client_wait`.
pub(crate) fn bypass_stream(
    bypass: Bypass,
    client_wait: Duration,
) -> impl Stream<Item = Result<Bytes, FillError>> {
    try_unfold(bypass, move |mut bypass| async move {
        let chunk = timeout(client_wait, bypass.next()).await.map_err(|_elapsed| FillError::ClientWait)??;
        Ok(chunk.map(|chunk| (chunk, bypass)))
    })
}

enum ClientStream {
    Fill(FillStream),
    Bypass(Box<Bypass>),
}

struct FillStream {
    state: Arc<State>,
    reader: Reader,
    /// Set at the first read. Remains readable when the fill has failed.
    partial: Option<Partial>,
    /// The bytes that have not been read.
    rest: Range<u64>,
}

impl FillStream {
    fn new(state: Arc<State>, reader: Reader, range: Range<u64>) -> Self {
        Self { state, reader, partial: None, rest: range }
    }

    async fn next_or_bypass(mut self) -> Result<(Option<Bytes>, ClientStream), FillError> {
        match self.next().await {
            Ok(chunk) => Ok((chunk, ClientStream::Fill(self))),
            Err(error) if error.permits_bypass() => {
                let mut bypass = Box::new(self.bypass().await?);
                Ok((bypass.next().await?, ClientStream::Bypass(bypass)))
            }
            Err(error) => Err(error),
        }
    }

    /// The next bytes of the partial file, as soon as they are present; `None` at the end of the range.
    async fn next(&mut self) -> Result<Option<Bytes>, FillError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.reader.readable(&self.rest).await?;
        let partial = match &self.partial {
            Some(partial) => partial,
            None => self.partial.insert(self.reader.fill().partial().ok_or(FillError::Stopped)?),
        };
        let chunk_size = self.state.config.node.read_size;
        let chunk = read(partial, self.rest.start..end, chunk_size).await.map_err(FillError::storage)?;
        // Bytes that were discarded during the read are not sent.
        if self.reader.is_outdated() {
            return Err(FillError::WrongDigest);
        }
        self.rest.start += byte_length(&chunk);
        Ok(Some(chunk))
    }

    /// Continues from an upstream. The bytes that the client has are hashed again, so that the
    /// whole blob is verified.
    async fn bypass(self) -> Result<Bypass, FillError> {
        let (fill, rest) = (self.reader.fill(), self.rest.clone());
        tracing::warn!(digest = %fill.digest(), offset = rest.start, "failed to store a blob, continuing without storing it");
        let hasher = match (self.reader.mode(), self.partial) {
            (ReadMode::Range | ReadMode::Rest, _) => None,
            (ReadMode::Whole, None) => Some(Hasher::new(fill.digest().algorithm())),
            (ReadMode::Whole, Some(partial)) => {
                let algorithm = fill.digest().algorithm();
                let hashed =
                    partial.spawn_blocking(move |file| hash_prefix(file, algorithm, rest.start)).await;
                Some(hashed.map_err(|_| FillError::Stopped)?.map_err(FillError::storage)?)
            }
        };
        let bypass =
            Bypass::open(Arc::clone(&self.state), fill.digest().clone(), fill.repository(), fill.size())
                .await?;
        bypass.connect(self.rest.clone(), hasher).await
    }
}
