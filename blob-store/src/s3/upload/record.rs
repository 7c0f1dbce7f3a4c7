//! What is kept on disk about a multipart upload, so that one that was forgotten can be thrown away.

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
    error::During,
    layout::{NEW_RECORD, upload_record},
};

/// Which upload it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadId {
    pub(crate) key: String,
    pub(crate) upload: String,
}

/// The record of an upload, locked until this is dropped or the process ends: to others, it is in use.
#[derive(Debug)]
pub(crate) struct UploadRecord {
    path: PathBuf,
    _lock: File,
}

impl UploadRecord {
    /// Writes the record of an upload of `digest`. Blocks.
    pub(crate) fn write(folder: &Path, digest: &Digest, id: &UploadId) -> Result<Self, StoreError> {
        let mut n = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (path, mut file) = loop {
            let path = folder.join(upload_record(digest, n));
            match File::create_new(path.with_added_extension(NEW_RECORD)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
                file => break (path.clone(), file.during("create", &path)?),
            }
        };
        file.lock().during("lock", &path)?;
        let text = serde_json::to_vec(id).during("encode", &path)?;
        file.write_all(&text).and_then(|()| file.sync_data()).during("write", &path)?;
        // Under its name only now that it is locked and whole.
        fs::rename(path.with_added_extension(NEW_RECORD), &path).during("rename", &path)?;
        Ok(Self { path, _lock: file })
    }

    /// Removes the record: the upload was completed or thrown away. Blocks.
    pub(crate) fn remove(self) {
        if let Err(error) = remove_file(&self.path) {
            tracing::warn!(%error, "the record of an upload that is over is left behind");
        }
    }

    /// The uploads that no process is at. Blocks.
    pub(crate) fn forgotten(folder: &Path) -> Result<Vec<(Self, UploadId)>, StoreError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).during("list", folder)? {
            let path = entry.during("list", folder)?.path();
            let Ok(lock) = File::open(&path) else { continue };
            if is_being_written(&path, &lock) {
                continue;
            }
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(StoreError::from_io("lock", &path, error)),
            }
            // Its owner may just have removed it.
            let Ok(text) = fs::read(&path) else { continue };
            match serde_json::from_slice(&text) {
                Ok(id) => found.push((Self { path, _lock: lock }, id)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the record of an upload is damaged: removed");
                    remove_file(&path)?;
                }
            }
        }
        Ok(found)
    }
}

/// Whether its owner may still be about to lock it.
fn is_being_written(path: &Path, file: &File) -> bool {
    const AT_MOST: Duration = Duration::from_secs(3600);
    let age = || file.metadata().and_then(|metadata| metadata.modified()).ok()?.elapsed().ok();
    path.extension().is_some_and(|extension| extension == NEW_RECORD) && age().is_none_or(|age| age < AT_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_forgotten_once_its_process_has_let_go_of_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::sha256(b"x");
        let id = UploadId { key: "blobs/x".to_owned(), upload: "7".to_owned() };
        let first = UploadRecord::write(folder.path(), &digest, &id).unwrap();
        let second = UploadRecord::write(folder.path(), &digest, &id).unwrap();
        assert!(UploadRecord::forgotten(folder.path()).unwrap().is_empty());
        drop(first);
        let mut found = UploadRecord::forgotten(folder.path()).unwrap();
        let (record, forgotten) = found.pop().unwrap();
        assert!(found.is_empty());
        assert_eq!(forgotten, id);
        record.remove();
        second.remove();
        fs::write(folder.path().join("damaged"), "{").unwrap();
        assert!(UploadRecord::forgotten(folder.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
