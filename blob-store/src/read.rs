//! Reads of a file at an offset: from the page cache without blocking, or blocking.

use std::{fs::File, io, os::unix::fs::FileExt};

use bytes::{Bytes, BytesMut};

/// Reads bytes at `offset` from the page cache into `buffer`, without waiting for the disk. Returns the number of bytes,
/// which may be less than the length of the buffer.
///
/// `None` if the read would block, or if the system does not support such reads: read on the
/// blocking pool instead. Also `None` at the end of the file, because Linux 5.9 and 5.10 return 0
/// for reads that would block.
///
/// # Errors
/// Those of `preadv2`.
pub fn read_nowait(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    if buffer.is_empty() {
        return Ok(Some(0));
    }
    let count = cached::read(file, offset, buffer)?;
    Ok(count.filter(|count| *count > 0))
}

#[cfg(target_os = "linux")]
mod cached {
    use std::{
        fs::File,
        io::{self, IoSliceMut},
    };

    use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr};

    pub(super) fn read(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = || preadv2(file, &mut [IoSliceMut::new(&mut *buffer)], offset, ReadWriteFlags::NOWAIT);
        // The filesystem or the kernel may not support the flag.
        match retry_on_intr(read) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod cached {
    use std::{fs::File, io};

    pub(super) fn read(_: &File, _: u64, _: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(None)
    }
}

/// Reads chunks into one allocation, provided that each chunk is dropped before the next one is read. Otherwise the next
/// chunk gets a new allocation.
#[derive(Debug)]
pub struct ReadBuffer {
    chunk_size: usize,
    /// The allocation of the last chunk, reused when the chunk is dropped.
    last: Bytes,
}

impl ReadBuffer {
    /// A buffer for chunks of at most `chunk_size` bytes. Allocates with the first read.
    pub fn new(chunk_size: usize) -> Self {
        Self { chunk_size, last: Bytes::new() }
    }

    /// Maximum number of bytes in a chunk.
    pub fn chunk_size(&self) -> usize {
        self.chunk_size
    }

    /// A chunk of 1 to `max` bytes from the page cache; `None` as for [`read_nowait`].
    ///
    /// # Errors
    /// Those of `preadv2`.
    pub fn read_nowait(&mut self, file: &File, offset: u64, max: usize) -> io::Result<Option<Bytes>> {
        let chunk = self.fill(max, |buffer| Ok(read_nowait(file, offset, buffer)?.unwrap_or(0)))?;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    /// A chunk of at most `max` bytes; empty at the end of the file. Blocks.
    ///
    /// # Errors
    /// Those of `pread`.
    pub fn read(&mut self, file: &File, offset: u64, max: usize) -> io::Result<Bytes> {
        self.fill(max, |buffer| read_once(file, offset, buffer))
    }

    fn fill(&mut self, max: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
        let mut buffer = match std::mem::take(&mut self.last).try_into_mut() {
            Ok(buffer) if buffer.len() == self.chunk_size => buffer,
            _ => BytesMut::zeroed(self.chunk_size),
        };
        let length = self.chunk_size.min(max);
        let read = read(buffer.get_mut(..length).unwrap_or_default());
        self.last = buffer.freeze();
        Ok(self.last.slice(..read?.min(length)))
    }
}

/// One `pread`, repeated after an interrupt.
pub(crate) fn read_once(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
