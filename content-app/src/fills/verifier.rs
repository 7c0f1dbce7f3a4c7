//! The hash over a blob's bytes in order, however out of order they land.

use std::{
    io,
    sync::{Mutex, PoisonError, TryLockError},
};

use blob_store::Partial;
use bytes::Bytes;
use oci_types::{Algorithm, Digest, Hasher};

/// How much is read back at once when the hash catches up with bytes that landed ahead of it.
const CATCH_UP_BYTES: usize = 1024 * 1024;

/// Hashes the run of bytes from the beginning of a blob on.
#[derive(Debug)]
pub(crate) struct Verifier(Mutex<Cursor>);

#[derive(Debug)]
struct Cursor {
    offset: u64,
    hasher: Hasher,
}

impl Verifier {
    /// Has seen no bytes.
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        Self(Mutex::new(Cursor { offset: 0, hasher: Hasher::new(algorithm) }))
    }

    /// Takes in bytes that were just written at `offset`, unless somebody else is hashing. When all before them has landed,
    /// as `reach` tells, the hash catches up first. Blocks: for the blocking pool.
    pub(crate) fn take(&self, partial: &Partial, offset: u64, pieces: &[Bytes], reach: impl Fn(u64) -> u64) {
        let mut cursor = match self.0.try_lock() {
            Ok(cursor) => cursor,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // What cannot be read back now is read back at the end, where a failure is told.
        let behind = cursor.offset < offset && reach(cursor.offset) >= offset;
        if behind && cursor.read_back(partial, offset).is_err() {
            return;
        }
        if cursor.offset == offset {
            pieces.iter().for_each(|piece| cursor.update(piece));
        }
    }

    /// Hashes what has landed up to `reach`, reading it back from the file. Blocks: for the blocking pool.
    pub(crate) fn catch_up(&self, partial: &Partial, reach: u64) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read_back(partial, reach)
    }

    /// The digest of everything taken in so far.
    pub(crate) fn digest(&self) -> Digest {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hasher.clone().finish()
    }
}

impl Cursor {
    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset += u64::try_from(bytes.len()).unwrap_or(0);
    }

    fn read_back(&mut self, partial: &Partial, reach: u64) -> io::Result<()> {
        let mut buffer = Vec::new();
        while self.offset < reach {
            let wanted = usize::try_from(reach - self.offset).unwrap_or(CATCH_UP_BYTES).min(CATCH_UP_BYTES);
            buffer.resize(wanted, 0);
            let read = partial.read_at(self.offset, &mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            self.update(bytes);
        }
        Ok(())
    }
}
