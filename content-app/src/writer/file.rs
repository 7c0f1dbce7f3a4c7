//! Reads of files in chunks: from the page cache on the worker, from the disk on the blocking pool.

use std::{cell::RefCell, fs::File, io, ops::Range, sync::Arc};

use actix_web::web::Bytes;
use blob_store::{Partial, ReadBuffer};
use futures::{Stream, stream::try_unfold};

use crate::source::byte_length;

thread_local! {
    /// The read buffer of this worker. A chunk is copied into the write buffer of its connection and dropped before the next
    /// connection reads, so a slow reader holds none.
    static BUFFER: RefCell<ReadBuffer> = RefCell::new(ReadBuffer::new(0));
}

/// A range of a stored file, in chunks of at most `chunk_size` bytes.
pub(crate) fn file_stream(
    file: Arc<File>,
    range: Range<u64>,
    chunk_size: usize,
) -> impl Stream<Item = Result<Bytes, io::Error>> {
    try_unfold(range.start, move |offset| {
        let file = Arc::clone(&file);
        async move {
            if offset >= range.end {
                return Ok(None);
            }
            let chunk = read(&file, offset..range.end, chunk_size).await?;
            let next = offset + byte_length(&chunk);
            Ok(Some((chunk, next)))
        }
    })
}

/// Reads the first chunk of a range that is present. Never empty.
pub(super) async fn read<F: AsFile>(file: &F, range: Range<u64>, chunk_size: usize) -> io::Result<Bytes> {
    let max = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    match read_nowait(file.as_file(), range.start, chunk_size, max)? {
        Some(chunk) => Ok(chunk),
        None => read_blocking(file.clone(), range.start, chunk_size.min(max)).await,
    }
}

/// At most `max` bytes from the page cache; `None` when the disk has to be read.
fn read_nowait(file: &File, offset: u64, chunk_size: usize, max: usize) -> io::Result<Option<Bytes>> {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.chunk_size() != chunk_size {
            *buffer = ReadBuffer::new(chunk_size);
        }
        buffer.read_nowait(file, offset, max)
    })
}

async fn read_blocking<F: AsFile>(file: F, offset: u64, length: usize) -> io::Result<Bytes> {
    tokio::task::spawn_blocking(move || {
        let chunk = ReadBuffer::new(length).read(file.as_file(), offset, length)?;
        if chunk.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(chunk) }
    })
    .await
    .map_err(io::Error::other)?
}

/// A handle of a file that another thread can read.
pub(super) trait AsFile: Clone + Send + 'static {
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
