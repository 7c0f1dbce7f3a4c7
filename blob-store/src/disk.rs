//! The local disk: stored blobs and partial files in one data directory.

mod partials;
mod scan;
mod usage;
mod walk;

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::stream::BoxStream;
use oci_types::{Algorithm, Digest};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use self::usage::{SizeChange, UsageCounter};
use crate::{
    BlobFile, BlobMeta, DiskUsage, PartialId, StoreError,
    durable::{create_directories, create_directory, file_length, remove_file},
    error::IoContext,
    layout::{Layout, Shard},
    partial::WeakPartial,
    stream::spawn_on_first_poll,
};

/// Capacity of the channel of a list.
const LIST_BUFFER: usize = 256;

/// Blobs and partial files under one directory. Every method blocks unless it says otherwise.
pub(crate) struct Disk {
    layout: Layout,
    /// Its blocking pool runs the work on partial files and lists.
    runtime: Handle,
    /// Partial files that this process has open. They are shared instead of locked again.
    open: Mutex<HashMap<PartialId, WeakPartial>>,
    usage: UsageCounter,
    /// Free space that reservations leave, in bytes.
    keep_free: AtomicU64,
    /// Held while a probe is written.
    probing: Mutex<()>,
}

impl Disk {
    /// Opens the data directory `root`, creates what is missing, and checks that blobs can be written.
    pub(crate) fn open(root: &Path, runtime: &Handle) -> Result<Arc<Self>, StoreError> {
        let root = &std::path::absolute(root).context("resolve", root)?;
        create_directories(root)?;
        let layout = Layout::new(root);
        for directory in [layout.blobs(), layout.partials()] {
            create_directory(&directory)?;
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            create_directory(&layout.algorithm(algorithm))?;
        }
        let disk = Arc::new(Self {
            layout,
            runtime: runtime.clone(),
            open: Mutex::default(),
            usage: UsageCounter::new(),
            keep_free: AtomicU64::new(0),
            probing: Mutex::default(),
        });
        disk.probe()?;
        scan::start(&disk);
        Ok(disk)
    }

    /// Sets the free space that reservations leave, in bytes.
    pub(crate) fn set_keep_free(&self, bytes: u64) {
        self.keep_free.store(bytes, Ordering::Relaxed);
    }

    /// Moves a corrupt stored blob to the quarantine directory, and returns its new path; `None` if
    /// it was not stored.
    pub(crate) fn quarantine(&self, digest: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let (path, directory) = (self.layout.blob(digest), self.layout.quarantine());
        create_directories(&directory)?;
        let target = directory.join(digest.as_str().replace(':', "-"));
        let mut moved = false;
        self.usage.change(Shard::of(digest), || {
            let before = file_length(&path)?.unwrap_or(0);
            match fs::rename(&path, &target) {
                Ok(()) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::from_io("rename", &path, error)),
            }
            Ok(SizeChange { before, after: 0 })
        })?;
        Ok(moved.then_some(target))
    }

    /// Runs `work` on the blocking pool, regardless of the runtime of the caller. Does not block.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(self);
        self.runtime.spawn_blocking(move || work(&disk)).await.map_err(|_| StoreError::Stopped)?
    }

    /// Opens a stored blob: one `open` and one `fstat`.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Option<BlobFile>, StoreError> {
        let path = self.layout.blob(digest);
        match File::open(&path) {
            Ok(file) => {
                let size = file.metadata().context("stat", &path)?.len();
                Ok(Some(BlobFile { size, file: Arc::new(file) }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::from_io("open", &path, error)),
        }
    }

    /// Properties of a stored blob, without opening it.
    pub(crate) fn head(&self, digest: &Digest) -> Result<Option<BlobMeta>, StoreError> {
        let path = self.layout.blob(digest);
        match fs::metadata(&path) {
            Ok(metadata) => {
                let modified_at = metadata.modified().context("stat", &path)?;
                Ok(Some(BlobMeta { digest: digest.clone(), size: metadata.len(), modified_at }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::from_io("stat", &path, error)),
        }
    }

    /// Deletes a stored blob; `false` if it was not stored.
    pub(crate) fn delete(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.layout.blob(digest);
        let mut deleted = false;
        // Not synced: a blob that a crash restores is still a verified blob.
        self.usage.change(Shard::of(digest), || {
            let before = file_length(&path)?.unwrap_or(0);
            deleted = remove_file(&path)?;
            Ok(SizeChange { before: if deleted { before } else { 0 }, after: 0 })
        })?;
        Ok(deleted)
    }

    /// Every stored blob, unordered. A shard that cannot be read is one error. Does not block.
    pub(crate) fn list(self: &Arc<Self>) -> BoxStream<'static, Result<BlobMeta, StoreError>> {
        let disk = Arc::clone(self);
        spawn_on_first_poll(LIST_BUFFER, move |sender| {
            disk.runtime.clone().spawn_blocking(move || {
                for shard in Shard::all() {
                    let found = match walk::blobs(&disk.layout, shard) {
                        Ok(blobs) => blobs.into_iter().map(Ok).collect(),
                        Err(error) => vec![Err(error)],
                    };
                    for blob in found {
                        if sender.blocking_send(blob).is_err() {
                            return;
                        }
                    }
                }
            });
        })
    }

    /// Writes a small file and renames it as a commit does. Directories that were removed are created again.
    pub(crate) fn probe(&self) -> Result<(), StoreError> {
        let _probing = self.probing.lock();
        let (written, renamed) = self.layout.probe();
        for path in [&written, &renamed] {
            path.parent().map_or(Ok(()), create_directories)?;
        }
        fs::write(&written, b"probe").context("write", &written)?;
        // Another process with the same data directory may have renamed or removed it, which also
        // shows that blobs can be written.
        ignore_not_found(fs::rename(&written, &renamed)).context("rename", &written)?;
        ignore_not_found(fs::remove_file(&renamed)).context("remove", &renamed)
    }

    /// Size of the stored blobs. Does not block.
    pub(crate) fn usage(&self) -> DiskUsage {
        self.usage.get()
    }

    pub(crate) fn root(&self) -> &Path {
        self.layout.root()
    }
}

fn ignore_not_found(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
