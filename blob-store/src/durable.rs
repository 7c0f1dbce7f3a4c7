//! Filesystem operations that survive a crash.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::error::{IoContext, StoreError};

/// Makes files created, renamed or removed in `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory).and_then(|directory| directory.sync_all()).context("sync", directory)
}

/// Creates a directory durably, unless it exists. Its parent must exist.
pub(crate) fn create_directory(directory: &Path) -> Result<(), StoreError> {
    match fs::create_dir(directory) {
        Ok(()) => directory.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::from_io("create directory", directory, error)),
    }
}

/// Creates a directory and its missing parents durably. The path must be absolute.
pub(crate) fn create_directories(directory: &Path) -> Result<(), StoreError> {
    if directory.is_dir() {
        return Ok(());
    }
    directory.parent().map_or(Ok(()), create_directories)?;
    create_directory(directory)
}

/// Removes a file; `false` if there is none.
pub(crate) fn remove_file(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::from_io("remove", path, error)),
    }
}

/// Length of the file at `path` in bytes; `None` if there is none.
pub(crate) fn file_length(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::from_io("stat", path, error)),
    }
}
