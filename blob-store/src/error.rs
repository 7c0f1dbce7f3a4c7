//! Errors of the store.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::io::Errno;

use crate::request_error::RequestError;

/// Why an operation of the store failed. The texts contain paths and keys: they are for the operator, not for clients.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The filesystem is full, a quota is exceeded, or the file is larger than the system permits.
    #[error("no space left to {action} {}: {source}", path.display())]
    NoSpace {
        /// The operation: a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system call.
        source: Arc<io::Error>,
    },
    /// Another process holds the lock of the partial file.
    #[error("{} is locked by another process", path.display())]
    Busy {
        /// The directory of the partial file.
        path: PathBuf,
    },
    /// The partial file was committed or discarded, and can no longer be written.
    #[error("the partial file is already committed or discarded")]
    Closed,
    /// The partial file is shorter than the blob that was to be committed.
    #[error("the partial file has {actual} bytes, expected {expected}")]
    Incomplete {
        /// Size of the blob in bytes.
        expected: u64,
        /// Length of the partial file in bytes.
        actual: u64,
    },
    /// An earlier sync failed, so bytes may be lost. The partial file can only be discarded.
    #[error("{} may have lost bytes in a failed sync; discard it", path.display())]
    SyncFailed {
        /// The data file.
        path: PathBuf,
    },
    /// Any other error of the filesystem.
    #[error("failed to {action} {}: {source}", path.display())]
    Io {
        /// The operation: a verb phrase.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the system call.
        source: Arc<io::Error>,
    },
    /// The object store did not respond in time, or refused the request. A reader treats the blob as not stored.
    #[error("object store failed to {action} {key}: {source}")]
    Unavailable {
        /// The operation: a verb phrase.
        action: &'static str,
        /// The object, or what was to be listed.
        key: String,
        /// The failed request.
        source: RequestError,
    },
    /// The bytes of the file do not have the digest of the blob. The partial file can only be discarded.
    #[error("digest mismatch in {}; discard it", path.display())]
    DigestMismatch {
        /// The data file.
        path: PathBuf,
    },
    /// The configuration of the object store is invalid; the source error has the reason.
    #[error("invalid object store configuration")]
    Config(#[source] Arc<dyn Error + Send + Sync>),
    /// The store was opened outside a tokio runtime, which it needs for its I/O.
    #[error("the blob store must be opened inside a tokio runtime")]
    NoRuntime,
    /// The runtime of the store was shut down, or the operation panicked.
    #[error("the runtime of the blob store has stopped")]
    Stopped,
}

impl RequestError {
    /// Adds the operation and the key.
    pub(crate) fn context(self, action: &'static str, key: impl fmt::Display) -> StoreError {
        StoreError::Unavailable { action, key: key.to_string(), source: self }
    }
}

impl StoreError {
    /// Classifies an error of a system call.
    pub(crate) fn from_io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let no_space = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let (path, source) = (path.to_owned(), Arc::new(source));
        if no_space { Self::NoSpace { action, path, source } } else { Self::Io { action, path, source } }
    }

    pub(crate) fn config(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Config(Arc::from(source.into()))
    }

    /// Whether the disk is full. The blob can still be streamed without storing it.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }

    /// Whether the file is damaged: other files may be readable.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_damage(source))
    }

    /// Whether the object store failed, rather than this node.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Whether an error of a read means that the file is damaged: shorter than it was, or on sectors
/// that cannot be read.
pub fn is_damage(error: &io::Error) -> bool {
    let damage = [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::NODATA];
    error.kind() == io::ErrorKind::UnexpectedEof
        || Errno::from_io_error(error).is_some_and(|error| damage.contains(&error))
}

/// Adds the operation and the path to an I/O error.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::from_io(action, path, error.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt};

    use super::*;

    #[test]
    fn a_full_device_is_distinguished_from_other_failures() {
        let path = Path::new("/dev/full");
        let full = File::options().write(true).open(path).unwrap();
        let error = full.write_all_at(b"x", 0).context("write", path).unwrap_err();
        assert!(error.is_no_space(), "{error}");

        let path = Path::new("/dev/null/x");
        let error = File::open(path).context("open", path).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        assert!(error.to_string().starts_with("failed to open /dev/null/x: "), "{error}");
        let source = error.source().unwrap().to_string();
        assert!(error.to_string().ends_with(&source), "{source}");
    }
}
