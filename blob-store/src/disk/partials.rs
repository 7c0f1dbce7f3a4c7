//! The life of a partial: begun, then committed or discarded.

use std::{
    collections::HashMap,
    fs, io,
    path::Path,
    sync::{MutexGuard, PoisonError},
};

use oci_types::Digest;

use super::{Inner, usage::Change};
use crate::{
    Partial, StoreError,
    durable::{file_length, make_folder, sync_folder},
    error::During,
    layout::Shard,
    partial::{Attempt, PartialLock, Stage, WeakPartial, remove_folder},
};

impl Inner {
    pub(super) fn begin(&self, digest: &Digest, size: Option<u64>) -> Result<Partial, StoreError> {
        if let Some(partial) = self.open_partial(digest) {
            if let Some(size) = size {
                partial.set_size(size);
            }
            return Ok(partial);
        }
        let folder = self.layout.partial(digest);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::from_io("make folder", &folder, error));
            }
            _ => {}
        }
        match PartialLock::attempt(&folder)? {
            Attempt::Taken(lock) => {
                let partial = Partial::open(digest, &folder, size, lock)?;
                let mut open = self.open_partials();
                open.retain(|_, other| other.is_alive());
                open.insert(digest.clone(), partial.downgrade());
                Ok(partial)
            }
            // No folder: whoever held it removed it just now.
            Attempt::Held | Attempt::NoFolder => Err(StoreError::Busy { path: folder }),
        }
    }

    pub(super) fn commit(&self, partial: &Partial, size: u64) -> Result<(), StoreError> {
        let digest = partial.digest();
        let (shard, blob) = (Shard::of(digest), self.layout.blob(digest));
        let mut stage = partial.stage();
        match *stage {
            Stage::Discarded => return Err(StoreError::Closed),
            Stage::Committed => return Ok(()),
            Stage::Placed => {}
            Stage::Open => {
                make_durable(partial, size)?;
                make_folder(&self.layout.shard(shard))?;
                self.usage.change(shard, || place(partial, &blob, size))?;
                *stage = Stage::Placed;
            }
        }
        sync_folder(&self.layout.shard(shard))?;
        sync_folder(partial.folder())?;
        *stage = Stage::Committed;
        self.forget(partial);
        if let Err(error) = remove_folder(partial.folder()) {
            tracing::warn!(%digest, %error, "the blob is stored, but the folder of its fill is left behind");
        }
        Ok(())
    }

    pub(super) fn close(&self, partial: &Partial) -> Result<(), StoreError> {
        let mut stage = partial.stage();
        if matches!(*stage, Stage::Committed | Stage::Discarded) {
            return Ok(());
        }
        *stage = Stage::Committed;
        self.forget(partial);
        remove_folder(partial.folder())
    }

    pub(super) fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        let folder = self.layout.partial(digest);
        if let Some(partial) = self.open_partial(digest) {
            let mut stage = partial.stage();
            if *stage == Stage::Open {
                remove_folder(&folder)?;
                *stage = Stage::Discarded;
                self.forget(&partial);
                return Ok(());
            }
        }
        match PartialLock::attempt(&folder)? {
            Attempt::Taken(_lock) => remove_folder(&folder),
            Attempt::NoFolder => Ok(()),
            Attempt::Held => Err(StoreError::Busy { path: folder }),
        }
    }

    /// Writes a small file and moves it the way of a blob.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        let _turn = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        let (written, moved) = self.layout.probe();
        fs::write(&written, b"probe").during("write", &written)?;
        // Another process with the same data folder may have moved or removed it: then that works, too.
        unless_gone(fs::rename(&written, &moved)).during("move into place", &written)?;
        unless_gone(fs::remove_file(&moved)).during("remove", &moved)
    }

    pub(super) fn open_partial(&self, digest: &Digest) -> Option<Partial> {
        let partial = self.open_partials().get(digest).and_then(WeakPartial::upgrade)?;
        partial.is_open().then_some(partial)
    }

    /// Another partial of the same blob may have been begun since; that one is left alone.
    fn forget(&self, partial: &Partial) {
        let mut open = self.open_partials();
        if open.get(partial.digest()).is_some_and(|other| other.is(partial)) {
            open.remove(partial.digest());
        }
    }

    fn open_partials(&self) -> MutexGuard<'_, HashMap<Digest, WeakPartial>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts off what does not belong to the blob (also space that was reserved), and syncs the rest.
fn make_durable(partial: &Partial, size: u64) -> Result<(), StoreError> {
    let path = partial.data_path();
    let actual = partial.file().metadata().during("look at", &path)?.len();
    if actual < size {
        return Err(StoreError::Short { expected: size, actual });
    }
    partial.file().set_len(size).during("truncate", &path)?;
    partial.sync()
}

fn place(partial: &Partial, blob: &Path, size: u64) -> Result<Change, StoreError> {
    let before = file_length(blob)?;
    if before == Some(size) {
        return Ok(Change { before: size, after: size });
    }
    if let Some(length) = before {
        let digest = partial.digest();
        tracing::error!(%digest, length, size, "the stored blob had a wrong length: the disk damaged it; replaced");
    }
    let data = partial.data_path();
    fs::rename(&data, blob).during("move into place", &data)?;
    Ok(Change { before: before.unwrap_or(0), after: size })
}

fn unless_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
