//! Records of multipart uploads on the local disk, by which a later process aborts the stale ones.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use oci_types::Digest;
use serde::{Deserialize, Serialize};

use crate::{
    StoreError,
    durable::remove_file,
    error::IoContext,
    layout::{NEW_RECORD, upload_record},
};

/// Age after which a record that was never finished is stale.
const MAX_WRITE_TIME: Duration = Duration::from_secs(3600);

/// Identity of a multipart upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MultipartId {
    pub(crate) key: String,
    #[serde(rename = "upload")]
    pub(crate) id: String,
}

/// The record of an upload. Its lock, held until it is dropped or the process ends, means that the upload is in use.
#[derive(Debug)]
pub(crate) struct UploadRecord {
    path: PathBuf,
    _lock: File,
}

impl UploadRecord {
    /// Creates the record of an upload of `digest`. Blocks.
    pub(crate) fn create(
        directory: &Path,
        digest: &Digest,
        upload: &MultipartId,
    ) -> Result<Self, StoreError> {
        let mut n = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (path, mut file) = loop {
            let path = directory.join(upload_record(digest, n));
            match File::create_new(path.with_added_extension(NEW_RECORD)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
                file => break (path.clone(), file.context("create", &path)?),
            }
        };
        file.lock().context("lock", &path)?;
        let text = serde_json::to_vec(upload).context("encode", &path)?;
        file.write_all(&text).and_then(|()| file.sync_data()).context("write", &path)?;
        // Renamed only now that it is locked and complete.
        fs::rename(path.with_added_extension(NEW_RECORD), &path).context("rename", &path)?;
        Ok(Self { path, _lock: file })
    }

    /// Removes the record of an upload that was completed or aborted. Blocks.
    pub(crate) fn remove(self) {
        if let Err(error) = remove_file(&self.path) {
            tracing::warn!(%error, "failed to remove the record of a multipart upload");
        }
    }

    /// The uploads that no process continues. Blocks.
    pub(crate) fn orphans(directory: &Path) -> Result<Vec<(Self, MultipartId)>, StoreError> {
        let mut orphans = Vec::new();
        for entry in fs::read_dir(directory).context("list", directory)? {
            let path = entry.context("list", directory)?.path();
            let Ok(lock) = File::open(&path) else { continue };
            if is_being_written(&path, &lock) {
                continue;
            }
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(StoreError::from_io("lock", &path, error)),
            }
            // Its process may have removed it before the lock.
            let Ok(text) = fs::read(&path) else { continue };
            match serde_json::from_slice(&text) {
                Ok(upload) => orphans.push((Self { path, _lock: lock }, upload)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "removed a corrupt record of a multipart upload");
                    remove_file(&path)?;
                }
            }
        }
        Ok(orphans)
    }
}

/// Whether its process may be about to lock it.
fn is_being_written(path: &Path, file: &File) -> bool {
    let age = || file.metadata().and_then(|metadata| metadata.modified()).ok()?.elapsed().ok();
    path.extension().is_some_and(|extension| extension == NEW_RECORD)
        && age().is_none_or(|age| age < MAX_WRITE_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_an_orphan_once_the_lock_of_its_record_is_released() {
        let directory = tempfile::tempdir().unwrap();
        let digest = Digest::sha256(b"x");
        let id = MultipartId { key: "blobs/x".to_owned(), id: "7".to_owned() };
        let first = UploadRecord::create(directory.path(), &digest, &id).unwrap();
        let second = UploadRecord::create(directory.path(), &digest, &id).unwrap();
        assert!(UploadRecord::orphans(directory.path()).unwrap().is_empty());
        drop(first);
        let mut orphans = UploadRecord::orphans(directory.path()).unwrap();
        let (record, orphan) = orphans.pop().unwrap();
        assert!(orphans.is_empty());
        assert_eq!(orphan, id);
        record.remove();
        second.remove();
        fs::write(directory.path().join("corrupt"), "{").unwrap();
        assert!(UploadRecord::orphans(directory.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("sha256-ab.7"), r#"{"key":"blobs/x","upload":"7"}"#).unwrap();
        let orphans = UploadRecord::orphans(directory.path()).unwrap();
        let (_, orphan) = orphans.first().unwrap();
        assert_eq!(*orphan, MultipartId { key: "blobs/x".to_owned(), id: "7".to_owned() });
    }
}
