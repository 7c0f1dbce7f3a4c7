//! The hash of a blob's bytes in order, regardless of the order in which they arrive.

use std::io;

use blob_store::PartialFile;
use bytes::Bytes;
use oci_types::{Algorithm, Digest, Hasher};
use parking_lot::Mutex;

use crate::source::byte_length;

/// How many bytes are read at once when the hash catches up with bytes that arrived out of order.
const READ_SIZE: usize = 1024 * 1024;

/// Hashes the contiguous bytes from the start of a blob.
#[derive(Debug)]
pub(crate) struct Verifier(Mutex<Position>);

#[derive(Debug)]
struct Position {
    offset: u64,
    hasher: Hasher,
}

impl Verifier {
    /// A verifier at offset 0.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self(Mutex::new(Position { offset: 0, hasher: Hasher::new(algorithm) }))
    }

    /// Hashes bytes that were just written at `offset`, unless another thread is hashing. Catches up first when all bytes
    /// before them are present, according to `contiguous_end`. Blocks: call it on the blocking pool.
    pub(crate) fn update(
        &self,
        partial: &PartialFile,
        offset: u64,
        pieces: &[Bytes],
        contiguous_end: impl Fn(u64) -> u64,
    ) {
        let Some(mut position) = self.0.try_lock() else { return };
        // Bytes that cannot be read back now are read back at the end, where an error is reported.
        let is_behind = position.offset < offset && contiguous_end(position.offset) >= offset;
        if is_behind && position.read_back(partial, offset).is_err() {
            return;
        }
        if position.offset == offset {
            for piece in pieces {
                position.hasher.update(piece);
                position.offset += byte_length(piece);
            }
        }
    }

    /// Hashes the bytes up to `end`, reading them from the file. Blocks: call it on the blocking pool.
    pub(crate) fn catch_up(&self, partial: &PartialFile, end: u64) -> io::Result<()> {
        self.0.lock().read_back(partial, end)
    }

    /// The digest of the first `size` bytes, if exactly these are hashed.
    pub(crate) fn digest_of(&self, size: u64) -> Option<Digest> {
        let position = self.0.lock();
        (position.offset == size).then(|| position.hasher.clone().finish())
    }
}

impl Position {
    fn read_back(&mut self, partial: &PartialFile, end: u64) -> io::Result<()> {
        hash_file(partial, self.offset..end, &mut self.hasher, &mut self.offset)
    }
}

/// The hash of the bytes before `end` of a partial file. Blocks: call it on the blocking pool.
pub(crate) fn hash_prefix(partial: &PartialFile, algorithm: Algorithm, end: u64) -> io::Result<Hasher> {
    let mut hasher = Hasher::new(algorithm);
    hash_file(partial, 0..end, &mut hasher, &mut 0)?;
    Ok(hasher)
}

/// Hashes a range of the file, and records its progress in `offset`.
fn hash_file(
    partial: &PartialFile,
    range: std::ops::Range<u64>,
    hasher: &mut Hasher,
    offset: &mut u64,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut position = range.start;
    while position < range.end {
        let length = usize::try_from(range.end - position).unwrap_or(READ_SIZE).min(READ_SIZE);
        buffer.resize(length, 0);
        let read = partial.read_at(position, &mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        hasher.update(bytes);
        position += u64::try_from(read).unwrap_or(0);
        *offset = position;
    }
    Ok(())
}
