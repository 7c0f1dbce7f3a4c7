//! Steps on folders that make what was done in them survive a crash.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use crate::error::{During, StoreError};

/// Makes names made, moved or removed in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).during("sync", folder)
}

/// Makes `folder` in a folder that exists, durably. One that is there is left as it is.
pub(crate) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    match fs::create_dir(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::from_io("make folder", folder, error)),
    }
}

/// Makes `folder` and those above it that are missing, durably. An absolute path.
pub(crate) fn make_folders(folder: &Path) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), make_folders)?;
    make_folder(folder)
}

/// Removes a file; `false` when there was none.
pub(crate) fn remove_file(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::from_io("remove", path, error)),
    }
}

/// The length of the file at `path`, in bytes; `None` when there is none.
pub(crate) fn file_length(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::from_io("look at", path, error)),
    }
}
