//! A window of a stored file, or of a fill that is still running, as a stream of chunks.

use std::{fs::File, io, ops::Range, sync::Arc};

use actix_web::web::Bytes;
use blob_store::{Partial, ReadBuffer};
use futures::{Stream, stream::try_unfold};
use shared_models::Hasher;

use crate::{
    fill::{Bypass, Context, FillError, Reader},
    metrics::GaugeGuard,
};

/// The chunk in which a fill is read, in bytes. Each stalled reader holds one, in its connection's write buffer.
const FILL_CHUNK: usize = 32 * 1024;

/// A window of a stored blob. Bytes in the page cache are read where the request is served; others on the blocking pool.
pub(crate) fn stored(
    file: Arc<File>,
    window: Range<u64>,
    chunk: usize,
) -> impl Stream<Item = Result<Bytes, io::Error>> {
    try_unfold((ReadBuffer::new(chunk), window.start), move |(mut buffer, offset)| {
        let file = Arc::clone(&file);
        async move {
            let left = usize::try_from(window.end - offset).unwrap_or(usize::MAX);
            if left == 0 {
                return Ok(None);
            }
            let chunk = match buffer.read_nowait(&file, offset, left)? {
                Some(chunk) => chunk,
                None => {
                    let read;
                    (read, buffer) = read_blocking(file, buffer, offset, left).await?;
                    read
                }
            };
            let offset = offset + byte_length(&chunk);
            Ok(Some((chunk, (buffer, offset))))
        }
    })
}

/// One read on the blocking pool. Never empty: what is asked for is there.
async fn read_blocking<F: AsFile + Send + 'static>(
    file: F,
    mut buffer: ReadBuffer,
    offset: u64,
    max: usize,
) -> io::Result<(Bytes, ReadBuffer)> {
    tokio::task::spawn_blocking(move || {
        let chunk = buffer.read(file.as_file(), offset, max)?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((chunk, buffer))
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
    whole: bool,
    counted: GaugeGuard,
) -> impl Stream<Item = Result<Bytes, FillError>> {
    let growing = Growing { context, reader, partial: None, window, whole };
    try_unfold((Way::Growing(growing), counted), |(way, counted)| async move {
        let (chunk, way) = match way {
            Way::Growing(growing) => growing.next().await?,
            Way::Bypass(mut bypass) => (bypass.next().await?, Way::Bypass(bypass)),
        };
        Ok(chunk.map(|chunk| (chunk, (way, counted))))
    })
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
    whole: bool,
}

impl Growing {
    async fn next(mut self) -> Result<(Option<Bytes>, Way), FillError> {
        if self.window.is_empty() {
            return Ok((None, Way::Growing(self)));
        }
        match self.reader.readable(self.window.start, &self.window, self.whole).await {
            Ok(end) => {
                let chunk = self.read(usize::try_from(end - self.window.start).unwrap_or(usize::MAX)).await?;
                self.window.start += byte_length(&chunk);
                Ok((Some(chunk), Way::Growing(self)))
            }
            Err(FillError::NoSpace) => {
                let mut bypass = self.bypass().await?;
                Ok((bypass.next().await?, Way::Bypass(bypass)))
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&mut self, max: usize) -> Result<Bytes, FillError> {
        let failed = |error: io::Error| FillError::Storage(error.to_string());
        let partial = match &self.partial {
            Some(partial) => partial,
            None => self.partial.insert(self.reader.fill().partial().ok_or(FillError::Stopped)?),
        };
        let offset = self.window.start;
        // Not kept from chunk to chunk: a reader that waits for its client holds no buffer.
        let mut buffer = ReadBuffer::new(FILL_CHUNK.min(max));
        let chunk = match buffer.read_nowait(partial.file(), offset, max).map_err(failed)? {
            Some(chunk) => chunk,
            None => read_blocking(partial.clone(), buffer, offset, max).await.map_err(failed)?.0,
        };
        // Bytes that were thrown away while they were read are not passed on.
        if self.reader.is_outdated() { Err(FillError::WrongDigest) } else { Ok(chunk) }
    }

    /// Goes on from upstream. What this client has got already is hashed again, so that the whole is still verified.
    async fn bypass(self) -> Result<Box<Bypass>, FillError> {
        let (digest, window) = (self.reader.fill().digest().clone(), self.window.clone());
        tracing::warn!(%digest, offset = window.start, "there is no space left: streaming on without storing");
        let hasher = match (self.whole, self.partial) {
            (false, _) => None,
            (true, None) => Some(Hasher::new(digest.algorithm())),
            (true, Some(partial)) => Some(hash_prefix(partial, window.start).await?),
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
