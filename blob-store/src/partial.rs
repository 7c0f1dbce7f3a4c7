//! A blob that is being filled.

mod lock;
mod segment_map;

use std::{
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use oci_types::Digest;
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::{Errno, retry_on_intr},
};

pub(crate) use self::lock::{Attempt, PartialLock};
pub use self::segment_map::SavedMap;
use crate::{
    Segments, StoreError,
    durable::{remove_file, sync_folder},
    error::During,
    layout::{DATA, LOCK, MAP, NEW_MAP},
    read::read_once,
};

/// One sparse file that a blob is filled into, with a map of what is there. Cheap to clone; all clones are
/// the same fill.
///
/// Every method that reads or writes the disk blocks: call it on the blocking pool. A clone that is still
/// held when the blob is committed or discarded goes on reading the bytes that were there.
#[derive(Clone)]
pub struct Partial(Arc<Inner>);

/// A partial that is given up when nobody else holds it.
#[derive(Debug, Clone)]
pub(crate) struct WeakPartial(Weak<Inner>);

#[derive(Debug)]
struct Inner {
    digest: Digest,
    folder: PathBuf,
    data: File,
    size: Mutex<Option<u64>>,
    /// Held for reading by whoever writes, so that no write is under way when the stage changes.
    stage: RwLock<Stage>,
    /// Set when a sync failed: the system may have dropped the bytes, and the next sync would not say so
    /// again.
    lost: AtomicBool,
    saved: Mutex<Option<SavedMap>>,
    /// Held while a map is written, so that two never share the file.
    saving: Mutex<()>,
    _lock: PartialLock,
}

/// How far a partial has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Bytes may be written.
    Open,
    /// It has the blob's name, but its folders are not known to be synced.
    Placed,
    /// It is a stored blob.
    Committed,
    /// It was thrown away.
    Discarded,
}

impl Partial {
    /// Opens or creates the data file of a locked folder and reads its map.
    pub(crate) fn open(
        digest: &Digest,
        folder: &Path,
        size: Option<u64>,
        lock: PartialLock,
    ) -> Result<Self, StoreError> {
        let path = folder.join(DATA);
        let data = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let data = data.during("open", &path)?;
        let length = data.metadata().during("look at", &path)?.len();
        let saved = SavedMap::read(folder, length);
        if saved.is_none() {
            // Nothing says which of these bytes can be trusted.
            data.set_len(0).during("truncate", &path)?;
        }
        Ok(Self(Arc::new(Inner {
            digest: digest.clone(),
            folder: folder.to_owned(),
            data,
            size: Mutex::new(size.or_else(|| saved.as_ref().and_then(|map| map.size))),
            stage: RwLock::new(Stage::Open),
            lost: AtomicBool::new(false),
            saved: Mutex::new(saved),
            saving: Mutex::new(()),
            _lock: lock,
        })))
    }

    /// Which blob this is to become.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Length of the blob in bytes, where it is known.
    pub fn size(&self) -> Option<u64> {
        *locked(&self.0.size)
    }

    /// Notes the length of the blob, in bytes.
    pub fn set_size(&self, size: u64) {
        *locked(&self.0.size) = Some(size);
    }

    /// The sparse file: bytes lie at their offset in the blob. For reading only.
    pub fn file(&self) -> &File {
        &self.0.data
    }

    /// Reserves disk space for `size` bytes. A filesystem that cannot reserve is taken to have the space.
    /// Blocks.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Closed`], [`StoreError::Io`].
    pub fn reserve(&self, size: u64) -> Result<(), StoreError> {
        // Nobody may write meanwhile: giving space back cuts the file at the end that it has now.
        let stage = self.stage();
        if *stage != Stage::Open {
            return Err(StoreError::Closed);
        }
        let reserved = match size {
            0 => Ok(()),
            _ => retry_on_intr(|| fallocate(&self.0.data, FallocateFlags::KEEP_SIZE, 0, size)),
        };
        match reserved {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => {
                // What was reserved before the space ran out is given back, where the filesystem did not do
                // so.
                let _ = self.0.data.metadata().and_then(|data| self.0.data.set_len(data.len()));
                Err(error).during("reserve space for", &self.data_path())
            }
        }
    }

    /// Writes `bytes` at `offset`. Nothing is announced or durable by it: see [`Partial::save_map`]. Blocks.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Closed`], [`StoreError::Io`]; some of the bytes may then be
    /// written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.while_open(|| self.0.data.write_all_at(bytes, offset).during("write", &self.data_path()))
    }

    /// Reads from `offset` on into `buffer`, and says how many bytes; 0 at the end of the file. Blocks.
    ///
    /// Which bytes are there is the caller's to know: where none were written, zeros are read.
    ///
    /// # Errors
    /// What the system says of the read.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        read_once(&self.0.data, offset, buffer)
    }

    /// Makes what was written durable, then saves which bytes are there, so that after a crash the map names
    /// no byte that was lost. `segments` are to name only bytes whose [`Partial::write_at`] has returned.
    /// Blocks.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Closed`], [`StoreError::Lost`], [`StoreError::Io`]; the map
    /// before this one then stands.
    pub fn save_map(
        &self,
        segments: &Segments,
        validator: Option<&str>,
        source: Option<&str>,
    ) -> Result<(), StoreError> {
        self.while_open(|| {
            let _turn = locked(&self.0.saving);
            self.sync()?;
            let map = SavedMap {
                segments: segments.clone(),
                size: self.size(),
                validator: validator.map(str::to_owned),
                source: source.map(str::to_owned),
            };
            map.write(&self.0.folder)?;
            *locked(&self.0.saved) = Some(map);
            Ok(())
        })
    }

    /// The map that was last saved, by this process or one before it; `None` when there is none or it was
    /// damaged.
    ///
    /// It names no byte beyond the end of the file as it was when the partial was opened.
    pub fn load_map(&self) -> Option<SavedMap> {
        locked(&self.0.saved).clone()
    }

    /// Makes every byte written so far durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let path = self.data_path();
        if self.0.lost.load(Ordering::Acquire) {
            return Err(StoreError::Lost { path });
        }
        self.0
            .data
            .sync_data()
            .during("sync", &path)
            .inspect_err(|_| self.0.lost.store(true, Ordering::Release))
    }

    /// The stage, which nobody changes and at which nobody writes while this is held.
    pub(crate) fn stage(&self) -> RwLockWriteGuard<'_, Stage> {
        self.0.stage.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stage, which may change the moment after.
    pub(crate) fn stage_now(&self) -> Stage {
        *self.0.stage.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.stage_now() == Stage::Open
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    pub(crate) fn data_path(&self) -> PathBuf {
        self.0.folder.join(DATA)
    }

    pub(crate) fn downgrade(&self) -> WeakPartial {
        WeakPartial(Arc::downgrade(&self.0))
    }

    /// A stored blob is never written again: every write holds the stage, and looks at it first.
    fn while_open<T>(&self, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let stage = self.0.stage.read().unwrap_or_else(PoisonError::into_inner);
        if *stage == Stage::Open { write() } else { Err(StoreError::Closed) }
    }
}

impl WeakPartial {
    pub(crate) fn upgrade(&self) -> Option<Partial> {
        self.0.upgrade().map(Partial)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn is(&self, partial: &Partial) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&partial.0))
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Partial")
            .field("digest", &self.0.digest)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// Removes a partial folder that is locked by the caller. The map goes first, so that it never outlives its
/// bytes; the lock goes last, so that whoever takes it next finds the folder empty.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), StoreError> {
    for name in [MAP, NEW_MAP, DATA, LOCK] {
        remove_file(&folder.join(name))?;
    }
    match fs::remove_dir(folder) {
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
        // The next fill of this blob may have moved in already.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        Err(error) => Err(StoreError::from_io("remove", folder, error)),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
