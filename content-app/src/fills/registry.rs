//! The running fills of a node: join one or start it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use blob_store::BlobStore;
use oci_types::Digest;
use shared_models::db::Db;
use tokio::sync::{Semaphore, mpsc};
use upstream_client::Upstream;

use super::{driver::drive, error::FillError, fill::Fill, lease::Cluster, progress::Phase};
use crate::{blob_lookup::OpenBlobs, config::FillPolicy, metrics::FillMetrics};

/// Claims of one fill that wait for a download to be started. A reader whose claim finds no place asks again.
const MOST_DEMANDS: usize = 64;

/// Complete blobs that wait at a time until a bucket takes them. One too many is let go: its file is taken up when it is
/// asked for again.
const MOST_WAITING: usize = 256;

/// What every fill of a node works with.
pub(crate) struct Context {
    pub(crate) db: Db,
    pub(crate) store: BlobStore,
    pub(crate) open: OpenBlobs,
    pub(crate) upstreams: HashMap<String, Upstream>,
    pub(crate) metrics: FillMetrics,
    /// What it takes to share fills with other nodes, where there are some.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) fill_permits: Semaphore,
    /// For blobs that are complete and wait until the storage takes them.
    pub(crate) waiting_permits: Semaphore,
    per_upstream: HashMap<String, Arc<Semaphore>>,
}

impl Context {
    pub(crate) fn new(
        db: Db,
        store: BlobStore,
        open: OpenBlobs,
        upstreams: HashMap<String, Upstream>,
        metrics: FillMetrics,
        cluster: Option<Cluster>,
        policy: &FillPolicy,
    ) -> Self {
        let permits = |name: &String| (name.clone(), Arc::new(Semaphore::new(policy.max_fills_per_upstream)));
        let per_upstream = upstreams.keys().map(permits).collect();
        let fill_permits = Semaphore::new(policy.max_fills);
        let waiting_permits = Semaphore::new(MOST_WAITING);
        Self { db, store, open, upstreams, metrics, cluster, fill_permits, waiting_permits, per_upstream }
    }

    /// The permits for downloads from one upstream.
    pub(crate) fn upstream_permits(&self, name: &str) -> Arc<Semaphore> {
        self.per_upstream.get(name).cloned().unwrap_or_else(|| Arc::new(Semaphore::new(1)))
    }
}

/// The fills that run on this node, one a blob.
#[derive(Clone)]
pub struct Fills {
    running: Arc<Mutex<HashMap<Digest, Arc<Fill>>>>,
    pub(crate) context: Arc<Context>,
    policy: FillPolicy,
    runtime: tokio::runtime::Handle,
}

impl Fills {
    pub(crate) fn new(context: Arc<Context>, policy: FillPolicy, runtime: tokio::runtime::Handle) -> Self {
        Self { running: Arc::default(), context, policy, runtime }
    }

    /// Enters the running fill of `digest`, started now if there is none. The second value says whether it ran already.
    ///
    /// A fill whose only reader comes too late would stop at once: `enter` counts it in before the fill begins.
    pub(crate) fn join<T>(&self, digest: &Digest, enter: impl FnOnce(&Arc<Fill>) -> T) -> (T, bool) {
        let mut running = self.lock();
        if let Some(fill) = running.get(digest).filter(|fill| !matches!(fill.now().phase, Phase::Failed(_))) {
            return (enter(fill), true);
        }
        let (demand, demands) = mpsc::channel(MOST_DEMANDS);
        let fill = Arc::new(Fill::new(digest.clone(), self.policy.clone(), demand));
        let entered = enter(&fill);
        let previous = running.insert(digest.clone(), Arc::clone(&fill));
        drop(running);
        let (fills, driven) = (self.clone(), fill);
        self.runtime.spawn(async move {
            // One that has failed may still be saving what it has, which this one is to take up.
            if let Some(previous) = previous {
                previous.ended().await;
            }
            // A panic is to end the fill, too: who waits for it would wait for ever.
            let drive = drive(Arc::clone(&driven), Arc::clone(&fills.context), demands);
            if fills.runtime.spawn(drive).await.is_err() {
                tracing::error!(digest = %driven.digest(), "a download panicked");
                driven.enter(Phase::Failed(FillError::Storage("the download panicked".to_owned())));
            }
            driven.end();
            fills.forget(&driven);
        });
        (entered, false)
    }

    /// The running fill of a blob.
    pub(crate) fn running(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.lock().get(digest).filter(|fill| !matches!(fill.now().phase, Phase::Failed(_))).cloned()
    }

    /// The fills that run now.
    pub fn all(&self) -> Vec<Arc<Fill>> {
        self.lock().values().cloned().collect()
    }

    /// Has every fill save what it has and end, and waits until that is done.
    pub(crate) async fn stop(&self) {
        const PATIENCE: Duration = Duration::from_secs(10);
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        let ended = async {
            loop {
                let running = self.all();
                if running.is_empty() {
                    return;
                }
                running.iter().for_each(|fill| fill.stop());
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            tracing::warn!(
                "some downloads did not end in time; they are taken up where they were saved last"
            );
        }
    }

    fn forget(&self, fill: &Arc<Fill>) {
        let mut running = self.lock();
        if running.get(fill.digest()).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            running.remove(fill.digest());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Fill>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
