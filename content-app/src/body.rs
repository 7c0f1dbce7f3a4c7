//! A window of a stored file, or of a fill that is still running, as a stream of chunks.

use std::{fs::File, io, ops::Range, sync::Arc};

use actix_web::web::Bytes;
use blob_store::ReadBuffer;
use futures::{Stream, stream::try_unfold};

use crate::{
    fill::{FillError, Reader},
    metrics::GaugeGuard,
};

/// The chunk with which the reading of a fill begins, in bytes. A thousand stalled readers cost this much each.
const FILL_CHUNK: usize = 64 * 1024;

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
                    let (read, returned) = read_blocking(file, buffer, offset, left).await?;
                    buffer = returned;
                    read
                }
            };
            let offset = offset + u64::try_from(chunk.len()).unwrap_or(0);
            Ok(Some((chunk, (buffer, offset))))
        }
    })
}

async fn read_blocking(
    file: Arc<File>,
    mut buffer: ReadBuffer,
    offset: u64,
    max: usize,
) -> io::Result<(Bytes, ReadBuffer)> {
    tokio::task::spawn_blocking(move || {
        let chunk = buffer.read(&file, offset, max)?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((chunk, buffer))
    })
    .await
    .map_err(io::Error::other)?
}

/// One reader's window of a fill, as its bytes land.
///
/// # Errors
/// The fill failed or its bytes were wrong: the connection is then aborted, so that no client takes the body for complete.
pub(crate) fn growing(
    reader: Reader,
    window: Range<u64>,
    whole: bool,
    counted: GaugeGuard,
) -> impl Stream<Item = Result<Bytes, FillError>> {
    let state =
        Growing { reader, buffer: ReadBuffer::new(FILL_CHUNK), offset: window.start, _counted: counted };
    try_unfold(state, move |mut state| {
        let window = window.clone();
        async move {
            if state.offset >= window.end {
                return Ok(None);
            }
            let end = state.reader.readable(state.offset, &window, whole).await?;
            let chunk = state.read(usize::try_from(end - state.offset).unwrap_or(usize::MAX)).await?;
            state.offset += u64::try_from(chunk.len()).unwrap_or(0);
            Ok(Some((chunk, state)))
        }
    })
}

struct Growing {
    reader: Reader,
    buffer: ReadBuffer,
    offset: u64,
    _counted: GaugeGuard,
}

impl Growing {
    async fn read(&mut self, max: usize) -> Result<Bytes, FillError> {
        let partial = self.reader.fill().partial().ok_or(FillError::Stopped)?;
        let failed = |error: io::Error| FillError::Storage(error.to_string());
        if let Some(chunk) = self.buffer.read_nowait(partial.file(), self.offset, max).map_err(failed)? {
            return self.current(chunk);
        }
        let buffer = std::mem::replace(&mut self.buffer, ReadBuffer::new(FILL_CHUNK));
        let (offset, file) = (self.offset, partial);
        let (chunk, buffer) = tokio::task::spawn_blocking(move || {
            let mut buffer = buffer;
            buffer.read(file.file(), offset, max).map(|chunk| (chunk, buffer))
        })
        .await
        .map_err(|_| FillError::Stopped)?
        .map_err(failed)?;
        self.buffer = buffer;
        if chunk.is_empty() {
            return Err(FillError::Storage("a partial file is shorter than its map".to_owned()));
        }
        self.current(chunk)
    }

    /// Bytes that were thrown away while they were read are not passed on.
    fn current(&self, chunk: Bytes) -> Result<Bytes, FillError> {
        if self.reader.is_outdated() { Err(FillError::WrongDigest) } else { Ok(chunk) }
    }
}
