//! Exclusive lock of a partial file between processes.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{
    error::{IoContext, StoreError},
    layout,
};

/// `flock` on the directory of a partial file, released on drop or when the process ends.
#[derive(Debug)]
pub(crate) struct PartialLock {
    _file: File,
}

/// Result of one attempt to lock.
#[derive(Debug)]
pub(crate) enum LockAttempt {
    Acquired(PartialLock),
    /// Another holder has it, or is removing the directory; a later attempt may succeed.
    Busy,
    NoDirectory,
}

impl PartialLock {
    /// Tries once, without waiting.
    pub(crate) fn try_acquire(directory: &Path) -> Result<LockAttempt, StoreError> {
        let path = directory.join(layout::LOCK);
        let file = match File::options().read(true).write(true).create(true).truncate(false).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockAttempt::NoDirectory),
            Err(error) => return Err(StoreError::from_io("open", &path, error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(LockAttempt::Busy),
            Err(TryLockError::Error(error)) => return Err(StoreError::from_io("lock", &path, error)),
        }
        // The previous holder may have removed the directory between open and lock. The locked file then has no
        // path, and a new file at the path can be locked as well.
        let locked = file.metadata().context("stat", &path)?;
        match fs::metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => {
                Ok(LockAttempt::Acquired(Self { _file: file }))
            }
            Ok(_) => Ok(LockAttempt::Busy),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LockAttempt::Busy),
            Err(error) => Err(StoreError::from_io("stat", &path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_exclusive_until_it_is_dropped_or_its_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let attempt = || PartialLock::try_acquire(directory.path()).unwrap();
        let first = attempt();
        assert!(matches!(first, LockAttempt::Acquired(_)));
        assert!(matches!(attempt(), LockAttempt::Busy));
        drop(first);
        let second = attempt();
        assert!(matches!(second, LockAttempt::Acquired(_)));
        fs::remove_file(directory.path().join(layout::LOCK)).unwrap();
        assert!(matches!(attempt(), LockAttempt::Acquired(_)));
        let missing = PartialLock::try_acquire(&directory.path().join("x")).unwrap();
        assert!(matches!(missing, LockAttempt::NoDirectory));
    }
}
