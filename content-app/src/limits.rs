//! Limits of what runs at once on a node.

mod idle;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use shared_models::db::blobs::BlobSource;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::{config::FillPolicy, error::FillError};

pub(crate) use idle::Idle;

/// Maximum number of verified blobs that wait for the object store. The fill of a further blob
/// fails; its partial file is resumed at the next request for the blob.
const MAX_UNSTORED: usize = 256;

/// The number of fills of each upstream that may run beyond the limit of the node.
const OWN_FILLS: usize = 2;

/// Limits of what runs at once on a node.
pub(crate) struct Limits {
    fills: Arc<Semaphore>,
    per_upstream: HashMap<String, PerUpstream>,
    /// Fills and bypasses that wait for a permit.
    waiting: Arc<AtomicUsize>,
    unstored: Semaphore,
}

/// The limits of one upstream.
struct PerUpstream {
    fills: Arc<Semaphore>,
    /// Permits in place of those of the node.
    own: Arc<Semaphore>,
}

/// The right of one fill to run.
pub(crate) struct FillPermit {
    _of_upstream: Option<OwnedSemaphorePermit>,
    _of_node: OwnedSemaphorePermit,
}

/// Counts a fill as waiting.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Limits {
    /// The limits of `policy`, for upstreams of these names.
    pub(crate) fn new<'a>(policy: &FillPolicy, upstreams: impl Iterator<Item = &'a String>) -> Self {
        let limits = |name: &String| {
            let fills = Arc::new(Semaphore::new(policy.max_fills_per_upstream));
            (name.clone(), PerUpstream { fills, own: Arc::new(Semaphore::new(OWN_FILLS)) })
        };
        Self {
            fills: Arc::new(Semaphore::new(policy.max_fills)),
            per_upstream: upstreams.map(limits).collect(),
            waiting: Arc::default(),
            unstored: Semaphore::new(MAX_UNSTORED),
        }
    }

    /// Waits for a permit of the first configured source's upstream, and then for one of the node, unless the upstream has
    /// one of its own: the fills of a slow upstream wait for each other, and those of several slow upstreams leave a permit
    /// to each other upstream.
    ///
    /// The lease is acquired after that. Its holder never waits for a permit, so nodes that follow
    /// each other's fills do not deadlock.
    pub(crate) async fn acquire_fill(&self, recorded: &[BlobSource]) -> Result<FillPermit, FillError> {
        let _waiting = Waiting::begin(&self.waiting);
        let upstream = recorded.iter().find_map(|source| self.per_upstream.get(&source.upstream));
        let (of_upstream, own) = match upstream {
            Some(PerUpstream { fills, own }) => {
                let of_upstream = Arc::clone(fills).acquire_owned().await.map_err(|_| FillError::Stopped)?;
                (Some(of_upstream), Arc::clone(own).try_acquire_owned().ok())
            }
            None => (None, None),
        };
        let of_node = match own {
            Some(own) => own,
            None => Arc::clone(&self.fills).acquire_owned().await.map_err(|_| FillError::Stopped)?,
        };
        Ok(FillPermit { _of_upstream: of_upstream, _of_node: of_node })
    }

    /// Whether a fill or a bypass waits for a permit.
    pub(crate) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits for a permit of one upstream; `None` where it is not configured.
    pub(crate) async fn acquire_upstream(&self, name: &str) -> Option<OwnedSemaphorePermit> {
        let semaphore = Arc::clone(&self.per_upstream.get(name)?.fills);
        let _waiting = Waiting::begin(&self.waiting);
        semaphore.acquire_owned().await.ok()
    }

    /// A place for what holds a permit between two reads of a client. It is dropped when others wait for a permit.
    pub(crate) fn idle<T: Send + 'static>(&self) -> Idle<T> {
        let waiting = Arc::clone(&self.waiting);
        Idle::new(move || waiting.load(Ordering::Relaxed) > 0)
    }

    /// A permit for a verified blob that waits for its storage.
    ///
    /// # Errors
    /// [`FillError::Storage`]: too many blobs wait.
    pub(crate) fn acquire_unstored(&self) -> Result<SemaphorePermit<'_>, FillError> {
        self.unstored
            .try_acquire()
            .map_err(|_| FillError::storage("too many blobs wait for the object store"))
    }
}
