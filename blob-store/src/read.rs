//! Reading file bytes at an offset, without waiting for the disk where the system can tell.

use std::{fs::File, io, os::unix::fs::FileExt};

use bytes::{Bytes, BytesMut};

/// Reads what the page cache holds at `offset` into `buffer`, and never waits for the disk.
///
/// `None`: nothing is to be had without waiting, here or on this system: read on the blocking pool instead.
/// The end of the file is `None` too, because some kernels (Linux 5.9, 5.10) answer 0 bytes where they mean
/// that they would wait. The count may be less than asked, where the cached pages end.
///
/// # Errors
/// What the system says of the read.
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
        // The filesystem or the kernel may not know the flag.
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

/// Reads chunk after chunk into the same memory, as long as each chunk is dropped before the next is read.
///
/// Memory is allocated and zeroed once; a chunk that is still held when the next is read costs another
/// buffer.
#[derive(Debug)]
pub struct ReadBuffer {
    chunk: usize,
    /// The whole buffer of the last chunk, to be taken back when nobody else holds it.
    last: Bytes,
}

impl ReadBuffer {
    /// A buffer for chunks of at most `chunk` bytes; allocates nothing yet.
    pub fn new(chunk: usize) -> Self {
        Self { chunk, last: Bytes::new() }
    }

    /// The most bytes that a chunk has.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// The next chunk from the page cache, of at most `max` bytes and not empty; `None` as for
    /// [`read_nowait`].
    ///
    /// # Errors
    /// What the system says of the read.
    pub fn read_nowait(&mut self, file: &File, offset: u64, max: usize) -> io::Result<Option<Bytes>> {
        let chunk = self.fill(max, |buffer| Ok(read_nowait(file, offset, buffer)?.unwrap_or(0)))?;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    /// The next chunk, of at most `max` bytes; empty at the end of the file. Blocks.
    ///
    /// # Errors
    /// What the system says of the read.
    pub fn read(&mut self, file: &File, offset: u64, max: usize) -> io::Result<Bytes> {
        self.fill(max, |buffer| read_once(file, offset, buffer))
    }

    fn fill(&mut self, max: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Bytes> {
        let mut buffer = match std::mem::take(&mut self.last).try_into_mut() {
            Ok(buffer) if buffer.len() == self.chunk => buffer,
            _ => BytesMut::zeroed(self.chunk),
        };
        let wanted = self.chunk.min(max);
        let read = read(buffer.get_mut(..wanted).unwrap_or_default());
        self.last = buffer.freeze();
        Ok(self.last.slice(..read?.min(wanted)))
    }
}

/// One `pread`, repeated when a signal came in between.
pub(crate) fn read_once(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn cached_bytes_are_read_at_once_and_the_end_is_left_to_a_blocking_read() {
        let file = file(b"0123456789");
        let mut buffer = [0; 4];
        // A filesystem may not offer it; where it does, the bytes are the right ones.
        if let Some(count) = read_nowait(&file, 3, &mut buffer).unwrap() {
            assert_eq!(buffer.get(..count).unwrap(), b"3456".get(..count).unwrap());
        }
        assert_eq!(read_nowait(&file, 10, &mut buffer).unwrap(), None);
        assert_eq!(read_nowait(&file, 3, &mut []).unwrap(), Some(0));
        assert_eq!(read_once(&file, 8, &mut buffer).unwrap(), 2);
    }

    #[test]
    fn a_read_buffer_reads_a_file_whole_and_reuses_memory_that_was_let_go() {
        let file = file(b"0123456789");
        let mut buffer = ReadBuffer::new(4);
        let first = buffer.read(&file, 0, 100).unwrap();
        let place = first.as_ptr();
        assert_eq!(first, "0123");
        drop(first);
        let second = buffer.read(&file, 4, 3).unwrap();
        assert_eq!(second, "456");
        assert_eq!(second.as_ptr(), place, "the memory was let go, and is used again");
        let third = buffer.read(&file, 7, 100).unwrap();
        assert_eq!((second, third.clone()), (Bytes::from("456"), Bytes::from("789")));
        assert_ne!(third.as_ptr(), place, "a chunk that is still held is never written over");
        assert_eq!(buffer.read(&file, 10, 4).unwrap(), "");
        if let Some(chunk) = buffer.read_nowait(&file, 2, 3).unwrap() {
            assert!("234".as_bytes().starts_with(&chunk));
        }
        assert_eq!(buffer.read_nowait(&file, 10, 3).unwrap(), None);
    }
}
