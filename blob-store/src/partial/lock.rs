//! One process writes a partial at a time.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{
    error::{During, StoreError},
    layout,
};

/// The right to write in one partial folder, until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct PartialLock {
    _file: File,
}

/// What came of an attempt to lock a partial folder.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is ours.
    Taken(PartialLock),
    /// Somebody else has it, or was just removing the folder: another attempt may end differently.
    Held,
    /// There is no such folder.
    NoFolder,
}

impl PartialLock {
    /// Tries once, without waiting.
    pub(crate) fn attempt(folder: &Path) -> Result<Attempt, StoreError> {
        let path = folder.join(layout::LOCK);
        let file = match File::options().read(true).write(true).create(true).truncate(false).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::NoFolder),
            Err(error) => return Err(StoreError::from_io("open", &path, error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Attempt::Held),
            Err(TryLockError::Error(error)) => return Err(StoreError::from_io("lock", &path, error)),
        }
        // Whoever held the lock before may have removed the folder between our opening and our locking: then
        // what we locked is a file without a name, which keeps nobody out.
        let ours = file.metadata().during("look at", &path)?;
        match fs::metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {
                Ok(Attempt::Taken(Self { _file: file }))
            }
            Ok(_) => Ok(Attempt::Held),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Attempt::Held),
            Err(error) => Err(StoreError::from_io("look at", &path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped_or_its_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = || PartialLock::attempt(folder.path()).unwrap();
        let first = attempt();
        assert!(matches!(first, Attempt::Taken(_)));
        assert!(matches!(attempt(), Attempt::Held));
        drop(first);
        let second = attempt();
        assert!(matches!(second, Attempt::Taken(_)));
        fs::remove_file(folder.path().join(layout::LOCK)).unwrap();
        assert!(matches!(attempt(), Attempt::Taken(_)));
        assert!(matches!(PartialLock::attempt(&folder.path().join("x")).unwrap(), Attempt::NoFolder));
    }
}
