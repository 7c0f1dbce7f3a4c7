//! Partial files: unfinished blobs on the local disk.

mod file;
mod id;
mod lock;
mod segment_map;

use std::{
    fmt,
    fs::File,
    sync::{Arc, Weak},
};

use tokio::{runtime::Handle, task::JoinHandle};

pub use self::{
    file::PartialFile,
    id::PartialId,
    segment_map::{HashedPrefix, SegmentMap},
};
pub(crate) use self::{
    file::{Stage, remove_directory},
    lock::{LockAttempt, PartialLock},
};

/// Handle to a partial file. Cheap to clone; all clones share one file.
///
/// Its methods do no I/O. Those that do are methods of [`PartialFile`], which only a closure on the blocking pool
/// gets: see [`Partial::spawn_blocking`].
///
/// Bytes that were written stay readable through [`Partial::file`] after the partial file is committed or
/// discarded.
#[derive(Clone)]
pub struct Partial {
    file: Arc<PartialFile>,
    runtime: Handle,
}

impl Partial {
    pub(crate) fn new(file: PartialFile, runtime: &Handle) -> Self {
        Self { file: Arc::new(file), runtime: runtime.clone() }
    }

    /// What the file is for.
    pub fn id(&self) -> &PartialId {
        self.file.id()
    }

    /// Size of the blob in bytes, if it is known.
    pub fn size(&self) -> Option<u64> {
        self.file.size()
    }

    /// Sets the size of the blob, in bytes; `None`: it is not known.
    pub fn set_size(&self, size: Option<u64>) {
        self.file.set_size(size);
    }

    /// The segment map as it was last saved, by this process or an earlier one; `None` if there is none or it was
    /// corrupt. It contains no byte beyond the end that the file had when it was opened.
    pub fn segment_map(&self) -> Option<SegmentMap> {
        self.file.segment_map()
    }

    /// The sparse file, for reading: each byte is at its offset in the blob. Reads may block; see
    /// [`crate::read_nowait`] for one that does not.
    pub fn file(&self) -> &File {
        self.file.data()
    }

    /// Runs `work` on the blocking pool of the runtime that opened the store. The task starts at
    /// once and runs to completion, even if the handle is dropped. One closure may write any number
    /// of pieces.
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PartialFile) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let file = Arc::clone(&self.file);
        self.runtime.spawn_blocking(move || work(&file))
    }

    /// The blocking file, for code that is on the blocking pool already.
    pub(crate) fn blocking(&self) -> &PartialFile {
        &self.file
    }

    pub(crate) fn downgrade(&self) -> WeakPartial {
        WeakPartial { file: Arc::downgrade(&self.file), runtime: self.runtime.clone() }
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.file, out)
    }
}

/// A handle that does not keep the partial file open.
#[derive(Debug, Clone)]
pub(crate) struct WeakPartial {
    file: Weak<PartialFile>,
    runtime: Handle,
}

impl WeakPartial {
    pub(crate) fn upgrade(&self) -> Option<Partial> {
        let file = self.file.upgrade()?;
        Some(Partial { file, runtime: self.runtime.clone() })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.file.strong_count() > 0
    }

    pub(crate) fn is(&self, file: &PartialFile) -> bool {
        std::ptr::eq(self.file.as_ptr(), file)
    }
}
