//! What can go wrong with the store.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why the store could not do what was asked. The text names paths: it is for the operator, not for a client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The volume is full, a quota is used up, or the file is larger than the system lets it become.
    #[error("no space to {action} {}: {source}", path.display())]
    NoSpace {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process is filling this blob.
    #[error("another process holds {}", path.display())]
    Busy {
        /// The folder of the partial.
        path: PathBuf,
    },
    /// The partial was committed or discarded: nothing may be written to it any more.
    #[error("the partial blob was already committed or discarded")]
    Closed,
    /// A blob was to be committed with more bytes than the partial has.
    #[error("the partial blob has {actual} bytes where {expected} were to be committed")]
    Short {
        /// Bytes that the blob has by its digest.
        expected: u64,
        /// Bytes that were written.
        actual: u64,
    },
    /// Bytes written earlier may never have reached the disk, so this partial can only be discarded.
    #[error("the disk lost bytes of {}; only to be discarded", path.display())]
    Lost {
        /// The file with the bytes.
        path: PathBuf,
    },
    /// Anything else that the system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The object store did not do what was asked in the time it was given, or refused it. For a read, take
    /// the blob to be not stored here.
    #[error("the object store could not {action} {key}: {reason}")]
    Unavailable {
        /// What was being done.
        action: &'static str,
        /// To which object.
        key: String,
        /// What it said, or that it said nothing.
        reason: String,
    },
    /// The file of a verified blob now has other bytes, so this partial can only be discarded.
    #[error("{} has other bytes than were verified; only to be discarded", path.display())]
    Corrupt {
        /// The file with the bytes.
        path: PathBuf,
    },
    /// The settings of the object store cannot be used.
    #[error("the settings of the object store cannot be used: {0}")]
    Settings(String),
    /// The store was opened outside a tokio runtime, on whose blocking pool it does its work.
    #[error("the blob store is to be opened inside a tokio runtime")]
    NoRuntime,
    /// The runtime stopped, or the work panicked, before there was an answer.
    #[error("the blob store's runtime stopped before the work was done")]
    Stopped,
}

impl StoreError {
    /// Sorts what the system said while `action` was done to `path`.
    pub(crate) fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let no_space = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let (path, source) = (path.to_owned(), Arc::new(source));
        if no_space { Self::NoSpace { action, path, source } } else { Self::Io { action, path, source } }
    }

    /// Whether the blob could be kept if there were more room: it can still be streamed, uncached.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Whether the object store is away, slow or unwilling, and nothing is wrong here.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Names the action and the path of a failed call.
pub(crate) trait During<T> {
    /// Turns the system's error into a [`StoreError`] that says what was being done, and to which path.
    fn during(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::from_io(action, path, error.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt};

    use super::*;

    #[test]
    fn a_full_device_is_told_apart_from_other_failures() {
        let path = Path::new("/dev/full");
        let full = File::options().write(true).open(path).unwrap();
        let error = full.write_all_at(b"x", 0).during("write", path).unwrap_err();
        assert!(error.is_no_space(), "{error}");

        let path = Path::new("/dev/null/x");
        let error = File::open(path).during("open", path).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert!(error.to_string().starts_with("cannot open /dev/null/x: "), "{error}");
    }
}
