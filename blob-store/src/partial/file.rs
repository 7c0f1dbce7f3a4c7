//! The blocking side of a partial file: reads, writes and checkpoints.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use rustix::{
    fs::{FallocateFlags, fallocate, fstatvfs},
    io::{Errno, retry_on_intr},
};

use super::{id::PartialId, lock::PartialLock, segment_map::SegmentMap};
use crate::{
    Segments, StoreError,
    durable::{remove_file, sync_directory},
    error::IoContext,
    layout::{DATA, LOCK, MAP, NEW_MAP},
    read::read_once,
};

/// Space that is reserved after the written bytes of a blob of unknown size, in bytes.
const RESERVE_STEP: u64 = 8 * 1024 * 1024;

/// A partial file on the blocking pool. Every method blocks, except [`PartialFile::id`].
pub struct PartialFile {
    id: PartialId,
    directory: PathBuf,
    data: File,
    size: Mutex<Option<u64>>,
    /// Free space of the filesystem that reservations leave, in bytes.
    keep_free: u64,
    /// The end of the reserved bytes.
    reserved: AtomicU64,
    /// Read-locked by each write, so that none is in progress when the stage changes.
    stage: RwLock<Stage>,
    /// Set after a failed sync: the kernel may have dropped the bytes, and reports a failure only once.
    sync_failed: AtomicBool,
    saved: Mutex<Option<SegmentMap>>,
    /// Held while a map is written; concurrent writers would use the same temporary file.
    saving: Mutex<()>,
    _lock: PartialLock,
}

/// Life cycle of a partial file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Writable.
    Open,
    /// Renamed to the path of the blob; the directories may not be synced yet.
    Renamed,
    /// Stored as a blob.
    Committed,
    /// Deleted.
    Discarded,
}

impl PartialFile {
    /// Opens or creates the data file in a locked directory and reads its segment map.
    pub(crate) fn open(
        id: &PartialId,
        directory: &Path,
        size: Option<u64>,
        keep_free: u64,
        lock: PartialLock,
    ) -> Result<Self, StoreError> {
        let path = directory.join(DATA);
        let data = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let data = data.context("open", &path)?;
        let length = data.metadata().context("stat", &path)?.len();
        let saved = SegmentMap::read(directory, length);
        if saved.is_none() {
            // Without a map, no byte is known to be valid.
            data.set_len(0).context("truncate", &path)?;
        }
        Ok(Self {
            id: id.clone(),
            directory: directory.to_owned(),
            data,
            keep_free,
            reserved: AtomicU64::new(0),
            size: Mutex::new(size.or_else(|| saved.as_ref().and_then(|map| map.size))),
            stage: RwLock::new(Stage::Open),
            sync_failed: AtomicBool::new(false),
            saved: Mutex::new(saved),
            saving: Mutex::new(()),
            _lock: lock,
        })
    }

    /// What the file is for.
    pub fn id(&self) -> &PartialId {
        &self.id
    }

    /// Checks that the disk has space for `size` bytes, including those of this file.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn check_room(&self, size: u64) -> Result<(), StoreError> {
        let path = self.data_path();
        let allocated = self.data.metadata().context("stat", &path)?.blocks().saturating_mul(512);
        let disk = fstatvfs(&self.data).map_err(io::Error::from).context("stat", &path)?;
        let available = disk.f_bavail.saturating_mul(disk.f_frsize);
        if size.saturating_sub(allocated) > available.saturating_sub(self.keep_free) {
            return Err(io::Error::from(io::ErrorKind::StorageFull)).context("reserve space for", &path);
        }
        Ok(())
    }

    /// Reserves disk space for `size` bytes. On a filesystem without reservations, only checks that
    /// there is enough space.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Closed`], [`StoreError::Io`].
    pub fn reserve(&self, size: u64) -> Result<(), StoreError> {
        // Excludes writes: releasing the reservation truncates the file at its current end.
        let stage = self.stage_mut();
        if *stage != Stage::Open {
            return Err(StoreError::Closed);
        }
        if size <= self.reserved.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_room(size)?;
        let reserved = match size {
            0 => Ok(()),
            _ => retry_on_intr(|| fallocate(&self.data, FallocateFlags::KEEP_SIZE, 0, size)),
        };
        match reserved {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.reserved.fetch_max(size, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                // Some filesystems keep what was reserved before the space ran out.
                let _ = self.data.metadata().and_then(|data| self.data.set_len(data.len()));
                Err(error).context("reserve space for", &self.data_path())
            }
        }
    }

    /// Frees the space that is reserved outside `present`.
    ///
    /// # Errors
    /// [`StoreError::Closed`], [`StoreError::Io`].
    pub fn release_reservation(&self, present: &Segments) -> Result<(), StoreError> {
        let stage = self.stage_mut();
        if *stage != Stage::Open {
            return Err(StoreError::Closed);
        }
        let path = self.data_path();
        self.reserved.store(0, Ordering::Relaxed);
        let mut end = 0;
        for segment in present.iter() {
            if segment.start > end {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                match retry_on_intr(|| fallocate(&self.data, flags, end, segment.start - end)) {
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                    Err(error) => return Err(error).context("release space of", &path),
                }
            }
            end = segment.end;
        }
        self.data.set_len(end).context("truncate", &path)
    }

    /// Writes `bytes` at `offset`, and reserves space for them and for some more. They are durable
    /// after the next [`PartialFile::save_segment_map`] or commit.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Closed`], [`StoreError::Io`]. Some bytes may then be written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if end > self.reserved.load(Ordering::Relaxed) {
            // The size is not known: space is reserved in steps, so that the disk keeps its free space.
            self.reserve(end.saturating_add(RESERVE_STEP)).or_else(|_| self.reserve(end))?;
        }
        self.while_open(|| self.data.write_all_at(bytes, offset).context("write", &self.data_path()))
    }

    /// Reads at `offset` into `buffer` and returns the number of bytes; 0 at the end of the file. Bytes that were
    /// never written are zero.
    ///
    /// # Errors
    /// Those of `pread`.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_once(&self.data, offset, buffer)
    }

    /// Syncs the data, then replaces the saved segment map, so that after a crash the map contains no lost byte. The
    /// map may contain only bytes whose [`PartialFile::write_at`] has returned. A missing size is filled in.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Closed`], [`StoreError::SyncFailed`], [`StoreError::Io`]. The previous
    /// map then remains.
    pub fn save_segment_map(&self, mut map: SegmentMap) -> Result<(), StoreError> {
        self.while_open(|| {
            let _saving = self.saving.lock();
            self.sync()?;
            map.size = map.size.or_else(|| self.size());
            map.write(&self.directory)?;
            *self.saved.lock() = Some(map);
            Ok(())
        })
    }

    pub(super) fn size(&self) -> Option<u64> {
        *self.size.lock()
    }

    pub(super) fn set_size(&self, size: Option<u64>) {
        *self.size.lock() = size;
    }

    pub(super) fn segment_map(&self) -> Option<SegmentMap> {
        self.saved.lock().clone()
    }

    pub(crate) fn data(&self) -> &File {
        &self.data
    }

    /// Length of the data file, in bytes.
    pub(crate) fn length(&self) -> Result<u64, StoreError> {
        Ok(self.data.metadata().context("stat", &self.data_path())?.len())
    }

    /// Truncates the file, and its reserved space, to `size` bytes and syncs it.
    pub(crate) fn truncate_and_sync(&self, size: u64) -> Result<(), StoreError> {
        let actual = self.length()?;
        if actual < size {
            return Err(StoreError::Incomplete { expected: size, actual });
        }
        self.data.set_len(size).context("truncate", &self.data_path())?;
        self.sync()
    }

    /// Locks the stage: no write is in progress while the guard is held.
    pub(crate) fn stage_mut(&self) -> RwLockWriteGuard<'_, Stage> {
        self.stage.write()
    }

    /// The stage at this moment.
    pub(crate) fn stage(&self) -> Stage {
        *self.stage.read()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn data_path(&self) -> PathBuf {
        self.directory.join(DATA)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let path = self.data_path();
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(StoreError::SyncFailed { path });
        }
        self.data
            .sync_data()
            .context("sync", &path)
            .inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    /// Every write goes through here, so that a stored blob is never written.
    fn while_open<T>(&self, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let stage = self.stage.read();
        if *stage == Stage::Open { write() } else { Err(StoreError::Closed) }
    }
}

impl fmt::Debug for PartialFile {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Partial").field("id", &self.id).field("size", &self.size()).finish_non_exhaustive()
    }
}

/// Removes the directory of a partial file whose lock the caller holds. The map is removed first, so that it never
/// outlives its bytes, and the lock last, so that its next holder finds the directory empty.
pub(crate) fn remove_directory(directory: &Path) -> Result<(), StoreError> {
    for name in [MAP, NEW_MAP, DATA, LOCK] {
        remove_file(&directory.join(name))?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => directory.parent().map_or(Ok(()), sync_directory),
        // A new partial file of the same identity may have been opened already.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        Err(error) => Err(StoreError::from_io("remove", directory, error)),
    }
}

#[cfg(test)]
mod tests;
