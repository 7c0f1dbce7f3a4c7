//! The fills of a node: join a running one or start it.

mod batches;
mod bypass;
mod checkpoint;
mod download;
mod driver;
mod fill;
mod phase;
mod plan;
mod prepare;
mod reader;
mod responses;
mod scheduler;
mod store;
mod verifier;

use std::{collections::HashMap, sync::Arc, time::Duration};

use oci_types::{Digest, RepositoryName};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::sync::CancellationToken;

pub(crate) use bypass::Bypass;
pub(crate) use fill::Fill;
pub(crate) use phase::Phase;
pub(crate) use reader::{Reader, linger};
pub(crate) use verifier::hash_prefix;

use crate::{error::FillError, state::State};

/// How long the fills of a stopping process may take to save their bytes.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The running fills of a node, one for each blob.
#[derive(Clone)]
pub(crate) struct Fills {
    running: watch::Sender<HashMap<Digest, Arc<Fill>>>,
    state: Arc<State>,
    runtime: Handle,
    /// Cancelled: all fills save their bytes and end.
    stop: CancellationToken,
}

impl Fills {
    /// No fills. They will run on `runtime`.
    pub(crate) fn new(state: Arc<State>, runtime: Handle) -> Self {
        Self { running: watch::Sender::new(HashMap::new()), state, runtime, stop: CancellationToken::new() }
    }

    /// Joins the running fill of `digest`, or starts it. The second value is whether it was
    /// running. A new fill prefers `repository` as its source.
    ///
    /// `join` adds a reader before a new fill begins: a fill without readers would stop at once.
    pub(crate) fn join<T>(
        &self,
        digest: &Digest,
        repository: Option<&RepositoryName>,
        join: impl FnOnce(&Arc<Fill>) -> T,
    ) -> (T, bool) {
        if let Some(fill) = self.get(digest) {
            return (join(&fill), true);
        }
        let policy = self.state.config.fills.clone();
        let new = Arc::new(Fill::new(digest.clone(), repository.cloned(), policy, self.stop.child_token()));
        let (mut fill, mut previous) = (Arc::clone(&new), None);
        let is_new = self.running.send_if_modified(|running| {
            if let Some(running) = running.get(digest).filter(|fill| !fill.is_failed()) {
                fill = Arc::clone(running);
                return false;
            }
            previous = running.insert(digest.clone(), Arc::clone(&new));
            true
        });
        let joined = join(&fill);
        if is_new {
            self.runtime.spawn(self.clone().run(new, previous));
        }
        (joined, !is_new)
    }

    async fn run(self, fill: Arc<Fill>, previous: Option<Arc<Fill>>) {
        // A failed fill may still be saving its bytes, which this one resumes.
        if let Some(previous) = previous {
            previous.closed.cancelled().await;
        }
        // A panic must also end the fill: otherwise its readers would wait forever.
        let driver = driver::run(Arc::clone(&fill), Arc::clone(&self.state));
        if self.runtime.spawn(driver).await.is_err() {
            tracing::error!(digest = %fill.digest(), "panic in a fill");
            fill.enter(Phase::Failed(FillError::storage("the fill panicked")));
        }
        fill.closed.cancel();
        self.running.send_modify(|running| {
            if running.get(fill.digest()).is_some_and(|current| Arc::ptr_eq(current, &fill)) {
                running.remove(fill.digest());
            }
        });
    }

    /// The running fill of a blob.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Arc<Fill>> {
        self.running.borrow().get(digest).filter(|fill| !fill.is_failed()).cloned()
    }

    /// All fills.
    pub(crate) fn list(&self) -> Vec<Arc<Fill>> {
        self.running.borrow().values().cloned().collect()
    }

    /// Stops all fills, and waits until they have saved their bytes.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let mut running = self.running.subscribe();
        let ended = running.wait_for(HashMap::is_empty);
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            let fills = self.running.borrow().len();
            tracing::warn!(
                fills,
                "fills still running after stop timeout; they will resume at their last checkpoint"
            );
        }
    }
}
