//! A window of a stored file, or of a fill that is still running, as a stream of chunks.

use std::{cell::RefCell, fs::File, io, ops::Range, sync::Arc};

use actix_web::web::Bytes;
use blob_store::{Partial, ReadBuffer, StoreError};
use futures::{
    Stream, StreamExt,
    stream::{BoxStream, try_unfold},
};
use oci_types::Hasher;

use crate::{
    fills::{Bypass, Context, FillError, Part, Reader},
    metrics::GaugeGuard,
};

thread_local! {
    /// What this worker reads with: a chunk is copied into its connection's write buffer and dropped before another
    /// connection's is read, so a stalled reader holds none.
    static BUFFER: RefCell<ReadBuffer> = RefCell::new(ReadBuffer::new(0));
}

/// At most `max` bytes in a chunk of `chunk` from the page cache, without waiting for the disk.
fn read_nowait(file: &File, offset: u64, chunk: usize, max: usize) -> io::Result<Option<Bytes>> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.chunk() != chunk {
            *buffer = ReadBuffer::new(chunk);
        }
        buffer.read_nowait(file, offset, max)
    })
}

/// A window of a stored file. Bytes in the page cache are read where the request is served; others on the blocking pool.
pub(crate) fn stored(
    file: Arc<File>,
    window: Range<u64>,
    chunk: usize,
) -> impl Stream<Item = Result<Bytes, io::Error>> {
    try_unfold(window.start, move |offset| {
        let file = Arc::clone(&file);
        async move {
            let left = usize::try_from(window.end - offset).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(None);
            }
            let chunk = match read_nowait(&file, offset, chunk, left)? {
                Some(chunk) => chunk,
                None => read_blocking(file, offset, chunk.min(left)).await?,
            };
            let offset = offset + byte_length(&chunk);
            Ok(Some((chunk, offset)))
        }
    })
}

/// One read on the blocking pool. Never empty: what is asked for is there.
async fn read_blocking<F: AsFile + Send + 'static>(file: F, offset: u64, chunk: usize) -> io::Result<Bytes> {
    tokio::task::spawn_blocking(move || {
        let chunk = ReadBuffer::new(chunk).read(file.as_file(), offset, chunk)?;
        if chunk.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(chunk) }
    })
    .await
    .map_err(io::Error::other)?
}

/// A client's window of a fill, as its bytes land; past the storage when there is no space for the rest.
///
/// # Errors
/// The fill failed or its bytes were wrong: the connection is then aborted, so that no client takes the body for complete.
pub(crate) fn growing(
    context: Arc<Context>,
    reader: Reader,
    window: Range<u64>,
    part: Part,
    chunk: usize,
    counted: GaugeGuard,
) -> impl Stream<Item = Result<Bytes, FillError>> {
    let growing = Growing { context, reader, partial: None, window, part, chunk };
    try_unfold((Way::Growing(growing), counted), |(way, counted)| async move {
        let (chunk, way) = match way {
            Way::Growing(growing) => growing.next().await?,
            Way::Bypass(mut bypass) => (bypass.next().await?, Way::Bypass(bypass)),
        };
        Ok(chunk.map(|chunk| (chunk, (way, counted))))
    })
}

/// Another node's window of a fill, as its bytes land, and of nothing else.
///
/// # Errors
/// As [`growing`].
pub(crate) fn tailing(
    context: Arc<Context>,
    reader: Reader,
    window: Range<u64>,
    part: Part,
    chunk: usize,
) -> impl Stream<Item = Result<Bytes, FillError>> {
    let growing = Growing { context, reader, partial: None, window, part, chunk };
    try_unfold(
        growing,
        |mut growing| async move { Ok(growing.landed().await?.map(|chunk| (chunk, growing))) },
    )
}

/// No bytes, for an answer that has only headers.
pub(crate) fn nothing() -> impl Stream<Item = Result<Bytes, FillError>> {
    futures::stream::empty()
}

/// A window of a blob in a bucket, whose first bytes have come: a bucket that is away is known before the answer begins.
///
/// # Errors
/// What came in place of the first bytes.
pub(crate) async fn begun(
    mut chunks: BoxStream<'static, Result<Bytes, StoreError>>,
) -> Result<impl Stream<Item = Result<Bytes, StoreError>>, StoreError> {
    let first = chunks.next().await.transpose()?;
    Ok(futures::stream::iter(first.map(Ok)).chain(chunks))
}

/// A client's window straight from upstream.
pub(crate) fn bypassing(bypass: Bypass) -> impl Stream<Item = Result<Bytes, FillError>> {
    try_unfold(bypass, |mut bypass| async move { Ok(bypass.next().await?.map(|chunk| (chunk, bypass))) })
}

/// Where a client's bytes come from.
enum Way {
    Growing(Growing),
    Bypass(Box<Bypass>),
}

struct Growing {
    context: Arc<Context>,
    reader: Reader,
    /// Kept from the first read on: what was read from it can be read again when the fill has failed.
    partial: Option<Partial>,
    /// What is still to be read.
    window: Range<u64>,
    part: Part,
    /// The most that is read at once, in bytes.
    chunk: usize,
}

impl Growing {
    async fn next(mut self) -> Result<(Option<Bytes>, Way), FillError> {
        match self.landed().await {
            Ok(chunk) => Ok((chunk, Way::Growing(self))),
            Err(FillError::NoSpace) => {
                let mut bypass = self.bypass().await?;
                Ok((bypass.next().await?, Way::Bypass(bypass)))
            }
            Err(error) => Err(error),
        }
    }

    /// The next bytes of the file, as soon as they have landed; `None` at the end of the window.
    async fn landed(&mut self) -> Result<Option<Bytes>, FillError> {
        if self.window.is_empty() {
            return Ok(None);
        }
        let end = self.reader.readable(self.window.start, &self.window, self.part).await?;
        let chunk = self.read(usize::try_from(end - self.window.start).unwrap_or(usize::MAX)).await?;
        self.window.start += byte_length(&chunk);
        Ok(Some(chunk))
    }

    async fn read(&mut self, max: usize) -> Result<Bytes, FillError> {
        let failed = |error: io::Error| FillError::Storage(error.to_string());
        let partial = match &self.partial {
            Some(partial) => partial,
            None => self.partial.insert(self.reader.fill().partial().ok_or(FillError::Stopped)?),
        };
        let offset = self.window.start;
        let chunk = match read_nowait(partial.file(), offset, self.chunk, max).map_err(failed)? {
            Some(chunk) => chunk,
            None => read_blocking(partial.clone(), offset, self.chunk.min(max)).await.map_err(failed)?,
        };
        // Bytes that were thrown away while they were read are not passed on.
        if self.reader.is_outdated() { Err(FillError::WrongDigest) } else { Ok(chunk) }
    }

    /// Goes on from upstream. What this client has got already is hashed again, so that the whole is still verified.
    async fn bypass(self) -> Result<Box<Bypass>, FillError> {
        let (digest, window) = (self.reader.fill().digest().clone(), self.window.clone());
        tracing::warn!(%digest, offset = window.start, "there is no space left: streaming on without storing");
        let hasher = match (self.part, self.partial) {
            (Part::Window | Part::Rest, _) => None,
            (Part::Whole, None) => Some(Hasher::new(digest.algorithm())),
            (Part::Whole, Some(partial)) => Some(hash_prefix(partial, window.start).await?),
        };
        let (policy, size) = (self.reader.fill().policy.clone(), self.reader.fill().now().size);
        let bypass = Bypass::open(self.context, policy, digest, size, |_| window, hasher).await?;
        Ok(Box::new(bypass))
    }
}

async fn hash_prefix(partial: Partial, end: u64) -> Result<Hasher, FillError> {
    const PIECE: usize = 1024 * 1024;
    let hashed = tokio::task::spawn_blocking(move || {
        let mut hasher = Hasher::new(partial.digest().algorithm());
        let mut buffer = vec![0; PIECE];
        let mut offset = 0;
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(PIECE).min(PIECE);
            let read = partial.read_at(offset, buffer.get_mut(..wanted).unwrap_or_default())?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
            offset += u64::try_from(read).unwrap_or(0);
        }
        Ok::<_, io::Error>(hasher)
    });
    let hashed = hashed.await.map_err(|_| FillError::Stopped)?;
    hashed.map_err(|error| FillError::Storage(error.to_string()))
}

/// What can be read as a file on another thread.
trait AsFile {
    fn as_file(&self) -> &File;
}

impl AsFile for Arc<File> {
    fn as_file(&self) -> &File {
        self
    }
}

impl AsFile for Partial {
    fn as_file(&self) -> &File {
        self.file()
    }
}

fn byte_length(chunk: &Bytes) -> u64 {
    u64::try_from(chunk.len()).unwrap_or(0)
}
