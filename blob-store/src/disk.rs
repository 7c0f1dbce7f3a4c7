//! Blobs in a folder on a local disk.

mod partials;
mod usage;
mod walk;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::File,
    io,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};

use oci_types::{Algorithm, Digest};
use tokio::{runtime::Handle, sync::mpsc};

use self::usage::{Change, UsageCounter};
use crate::{
    DiskUsage, ListedBlob, Partial, StoreError, StoredBlob,
    durable::{file_length, make_folder, make_folders, remove_file},
    error::During,
    layout::{Layout, Shard},
    partial::{Attempt, PartialLock, WeakPartial, remove_folder},
};

/// How long a partial that somebody holds is waited for: long enough for a fill of this process that is just
/// being dropped, too short to be felt by a client.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How many listed blobs are read ahead of whoever asked for the list.
const LIST_AHEAD: usize = 256;

/// Blobs in one folder. Cheap to clone.
#[derive(Clone)]
pub struct LocalStore(Arc<Inner>);

struct Inner {
    layout: Layout,
    /// The runtime on whose blocking pool the disk is touched, whatever runtime a caller is on.
    runtime: Handle,
    /// The partials that this process holds. Whoever begins one of these again joins it instead of finding it
    /// locked.
    open: Mutex<HashMap<Digest, WeakPartial>>,
    usage: UsageCounter,
    /// Held while a probe is written.
    probe: Mutex<()>,
}

impl LocalStore {
    /// Opens the data folder `root`, making what is missing, and checks that blobs can be written and moved
    /// into place. Blocks; to be called on the runtime that is to do the store's work, which outlives every
    /// request.
    ///
    /// # Errors
    /// [`StoreError::NoRuntime`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let runtime = Handle::try_current().map_err(|_| StoreError::NoRuntime)?;
        let root = &std::path::absolute(root).during("find", root)?;
        make_folders(root)?;
        let layout = Layout::new(root);
        for folder in [layout.blobs(), layout.partials()] {
            make_folder(&folder)?;
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            make_folder(&layout.algorithm(algorithm))?;
        }
        let (usage, probe) = (UsageCounter::new(), Mutex::new(()));
        let inner = Arc::new(Inner { layout, runtime, open: Mutex::default(), usage, probe });
        inner.probe()?;
        count_in_background(&inner);
        Ok(Self(inner))
    }

    /// Opens a stored blob: one `open` and one `fstat`. `None` when it is not here.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn stored(&self, digest: &Digest) -> Result<Option<StoredBlob>, StoreError> {
        let path = self.0.layout.blob(digest);
        self.blocking(move |_| match File::open(&path) {
            Ok(file) => {
                let size = file.metadata().during("look at", &path)?.len();
                Ok(Some(StoredBlob { size, file: Arc::new(file) }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::from_io("open", &path, error)),
        })
        .await
    }

    /// Begins the fill of a blob of `size` bytes, or resumes the one that was left; [`Partial::load_map`]
    /// then says what is there. A partial that this process still holds open, for a reader of a fill that
    /// failed say, is given out again.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another process holds the partial, [`StoreError::NoSpace`],
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn begin(&self, digest: &Digest, size: Option<u64>) -> Result<Partial, StoreError> {
        let digest = digest.clone();
        self.patiently(move |inner| inner.begin(&digest, size)).await
    }

    /// Makes a blob stored: bytes beyond `size` are cut off, the rest is synced and moved into place, and the
    /// partial is closed. The caller has verified the digest over all `size` bytes. Does nothing more when it
    /// was done before, and keeps the blob that is in place when there is one of that size.
    ///
    /// # Errors
    /// [`StoreError::Short`], [`StoreError::Closed`] when it was discarded, [`StoreError::Lost`],
    /// [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`]. But for `Closed` and `Lost` it
    /// may be tried again.
    pub async fn commit(&self, partial: &Partial, size: u64) -> Result<(), StoreError> {
        let partial = partial.clone();
        self.blocking(move |inner| inner.commit(&partial, size)).await
    }

    /// Closes a partial whose blob is stored elsewhere; its bytes go. Who reads it reads on.
    pub(crate) async fn close(&self, partial: &Partial) -> Result<(), StoreError> {
        let partial = partial.clone();
        self.blocking(move |inner| inner.close(&partial)).await
    }

    /// Whether this process is filling the blob.
    pub(crate) fn is_filling(&self, digest: &Digest) -> bool {
        self.0.open_partial(digest).is_some()
    }

    /// Throws a partial away, if there is one. Who reads it reads on; the next [`LocalStore::begin`] starts
    /// from nothing.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another process holds it, [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        let digest = digest.clone();
        self.patiently(move |inner| inner.discard(&digest)).await
    }

    /// Removes a stored blob; `false` when it was not here. Who reads it reads on.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn remove(&self, digest: &Digest) -> Result<bool, StoreError> {
        let digest = digest.clone();
        self.blocking(move |inner| {
            let path = inner.layout.blob(&digest);
            let mut removed = false;
            // Not synced: a blob that comes back after a crash is still a verified blob.
            inner.usage.change(Shard::of(&digest), || {
                let before = file_length(&path)?.unwrap_or(0);
                removed = remove_file(&path)?;
                Ok(Change { before: if removed { before } else { 0 }, after: 0 })
            })?;
            Ok(removed)
        })
        .await
    }

    /// Every stored blob, in no order to rely on. Ends early when the receiver is dropped; a shard that
    /// cannot be read is one error, and the list goes on.
    pub fn list(&self) -> mpsc::Receiver<Result<ListedBlob, StoreError>> {
        let (sender, receiver) = mpsc::channel(LIST_AHEAD);
        let inner = Arc::clone(&self.0);
        self.0.runtime.spawn_blocking(move || {
            for shard in Shard::all() {
                let found = match walk::blobs(&inner.layout, shard) {
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
        receiver
    }

    /// Throws away the partials in which nothing was written for `older_than`, but for those of `keep` and
    /// those that some process holds. Says which they were.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn sweep_partials(
        &self,
        older_than: Duration,
        keep: &HashSet<Digest>,
    ) -> Result<Vec<Digest>, StoreError> {
        let keep = keep.clone();
        self.blocking(move |inner| {
            let mut swept = Vec::new();
            for (digest, folder, written_at) in walk::partials(&inner.layout)? {
                let age = SystemTime::now().duration_since(written_at).unwrap_or_default();
                if age < older_than || keep.contains(&digest) {
                    continue;
                }
                if let Attempt::Taken(_lock) = PartialLock::attempt(&folder)? {
                    remove_folder(&folder)?;
                    swept.push(digest);
                }
            }
            Ok(swept)
        })
        .await
    }

    /// Checks that a blob could be stored now: a small file is written and moved the way of a blob.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::Stopped`].
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.blocking(Inner::probe).await
    }

    /// How much the stored blobs take; read from memory.
    pub async fn usage(&self) -> DiskUsage {
        self.0.usage.get()
    }

    /// Tries again for a while when somebody holds the partial.
    async fn patiently<T: Send + 'static>(
        &self,
        attempt: impl Fn(&Inner) -> Result<T, StoreError> + Clone + Send + 'static,
    ) -> Result<T, StoreError> {
        let give_up_at = Instant::now() + LOCK_PATIENCE;
        loop {
            match self.blocking(attempt.clone()).await {
                Err(StoreError::Busy { .. }) if Instant::now() < give_up_at => {
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        self.0.runtime.spawn_blocking(move || work(&inner)).await.map_err(|_| StoreError::Stopped)?
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LocalStore").field("root", &self.0.layout.root()).finish_non_exhaustive()
    }
}

/// Counts what is stored. On a thread of its own, so that a large store does not keep a stopping process
/// waiting.
fn count_in_background(inner: &Arc<Inner>) {
    let inner = Arc::downgrade(inner);
    let count = move || {
        for shard in Shard::all() {
            let Some(inner) = inner.upgrade() else { return };
            inner.usage.count(shard, || match walk::blobs(&inner.layout, shard) {
                Ok(blobs) => blobs.iter().map(|blob| blob.size).sum(),
                Err(error) => {
                    tracing::warn!(%error, "stored blobs could not be counted: the disk usage will read too low");
                    0
                }
            });
        }
    };
    if let Err(error) = thread::Builder::new().name("blob-usage".to_owned()).spawn(count) {
        tracing::warn!(%error, "no thread to count stored blobs: the disk usage will read too low");
    }
}

#[cfg(test)]
mod tests;
