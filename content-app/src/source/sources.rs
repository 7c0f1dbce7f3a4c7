//! The sources of one fill, and the lease under which they are used.

use std::time::Duration;

use internal_api::{BlobPresence, Node};
use oci_types::{Digest, Millis};
use shared_models::db::blobs::{self, BlobSource, BlobState};
use tokio_util::sync::CancellationToken;
use upstream_client::UpstreamError;

use super::{
    Choice, Contributors, Next, PeerSource, Source, UpstreamSource,
    lease::{self, Following, Offset, Role},
};
use crate::{
    backoff::Delays,
    error::{DownloadError, FillError},
    state::{Cluster, State},
};

const MIN_STORED_CHECK_DELAY: Duration = Duration::from_millis(250);
const MAX_STORED_CHECK_DELAY: Duration = Duration::from_secs(5);

/// How a fill continues after a failed download.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resumption {
    /// The delay before the next download.
    pub(crate) delay: Duration,
    /// Whether all bytes must be discarded: the sources contradict the size that they were received
    /// for.
    pub(crate) starts_over: bool,
}

/// The sources of one fill.
pub(crate) struct Sources<'a> {
    state: &'a State,
    digest: &'a Digest,
    offset: Offset,
    /// An index is valid until the fill ends: [`Choice`] names sources by it.
    list: Vec<Source>,
    choice: Choice,
    delays: Delays,
    role: Option<Role>,
}

impl<'a> Sources<'a> {
    /// Finds the sources of a blob, and acquires its lease or follows the holder. `offset` gives the number of bytes from
    /// the start that are present.
    pub(crate) async fn open(
        state: &'a State,
        digest: &'a Digest,
        recorded: &[BlobSource],
        blob_state: BlobState,
        offset: Offset,
    ) -> Self {
        let upstreams = UpstreamSource::configured(recorded, &state.upstreams);
        let mut list: Vec<_> = upstreams.into_iter().map(Source::Upstream).collect();
        if let Some(cluster) = &state.cluster
            && blob_state == BlobState::Stored
            && !state.store.is_shared()
        {
            let peers = lease::peers_with_blob(cluster, digest).await;
            list.splice(0..0, peers.into_iter().map(|peer| peer_source(cluster, peer)));
        }
        let policy = &state.config.fills;
        let choice = if list.is_empty() && !recorded.is_empty() {
            Choice::unconfigured(policy.attempts)
        } else {
            Choice::new(&list.iter().map(Source::origin).collect::<Vec<_>>(), policy.attempts)
        };
        let delays = Delays::new(policy.backoff_min, policy.backoff_max);
        let mut sources = Self { state, digest, offset, list, choice, delays, role: None };
        sources.acquire_or_follow().await;
        sources
    }

    /// Acquires the lease, or follows its holder. Continues without a lease if the database fails:
    /// serving clients has priority over avoiding a duplicate download.
    pub(crate) async fn acquire_or_follow(&mut self) {
        let Some(cluster) = &self.state.cluster else { return };
        match lease::acquire_or_follow(cluster, self.digest, &self.offset).await {
            Ok(role) => self.assume(cluster, role),
            Err(error) => {
                tracing::warn!(digest = %self.digest, %error, "failed to acquire lease, downloading without one");
                self.lead_without_lease();
            }
        }
    }

    fn assume(&mut self, cluster: &Cluster, role: Role) {
        let followed = match &role {
            Role::Holder(_) => None,
            Role::Follower(following) => {
                tracing::info!(digest = %self.digest, node = following.peer.id, "following the download of another node");
                self.list.push(peer_source(cluster, following.peer.clone()));
                Some(self.list.len() - 1)
            }
        };
        self.choice.follow(followed);
        self.role = Some(role);
    }

    fn lead_without_lease(&mut self) {
        self.choice.follow(None);
        self.role = None;
    }

    /// Stops following a peer that failed too often.
    fn sync_role(&mut self) {
        if self.following().is_some() && !self.choice.is_following() {
            self.role = None;
        }
    }

    fn following(&self) -> Option<&Following> {
        match &self.role {
            Some(Role::Follower(following)) => Some(following),
            _ => None,
        }
    }

    /// The source at an index.
    pub(crate) fn get(&self, index: usize) -> Option<&Source> {
        self.list.get(index)
    }

    /// The next source, and its index.
    ///
    /// # Errors
    /// No source is left; the error for the readers.
    pub(crate) fn current(&self) -> Result<(usize, Source), FillError> {
        let index = self.choice.current()?;
        self.list.get(index).cloned().map(|source| (index, source)).ok_or(FillError::NoSource)
    }

    /// Whether a source of another upstream or peer can replace this one.
    pub(crate) fn has_alternative(&self, index: usize) -> bool {
        !self.choice.is_following() && self.choice.has_alternative(index)
    }

    /// Records that bytes arrived: earlier failures no longer count.
    pub(crate) fn progressed(&mut self) {
        self.choice.progressed();
        self.reset_delays();
    }

    fn reset_delays(&mut self) {
        let policy = &self.state.config.fills;
        self.delays = Delays::new(policy.backoff_min, policy.backoff_max);
    }

    /// Records a failure of a source, and returns what follows.
    ///
    /// # Errors
    /// There were too many failures, or this node failed.
    pub(crate) async fn failed(
        &mut self,
        index: usize,
        error: &DownloadError,
        has_bytes: bool,
    ) -> Result<Resumption, FillError> {
        let at_once = Resumption { delay: Duration::ZERO, starts_over: false };
        let next = self.choice.failed(index, error, has_bytes);
        if let (DownloadError::Upstream(UpstreamError::NotFound), Some(source)) =
            (error, self.list.get(index))
        {
            self.deprioritize(source).await;
        }
        let next = next?;
        match next {
            Next::Ignore | Next::Other => return Ok(at_once),
            Next::Retry | Next::StartOver => self.sync_role(),
            Next::ProbePeer => {
                if let (Some(cluster), Some(following)) = (&self.state.cluster, self.following())
                    && cluster.peers.probe(&following.peer, self.digest).await == BlobPresence::Absent
                {
                    self.take_over().await;
                }
            }
        }
        Ok(Resumption { delay: self.delays.next_delay(), starts_over: next == Next::StartOver })
    }

    /// Waits until the followed node is lost; forever where none is followed.
    pub(crate) async fn holder_lost(&self) {
        match self.following() {
            Some(following) => following.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Acquires the lease of a followed node that is lost, or follows the node that acquired it
    /// first.
    pub(crate) async fn take_over(&mut self) {
        if let (Some(cluster), Some(following)) = (&self.state.cluster, self.following()) {
            lease::release_dead_holder(cluster, self.digest, &following.peer).await;
        }
        self.acquire_or_follow().await;
    }

    /// Records that the blob is complete and does not match its digest.
    ///
    /// # Errors
    /// No source is left, or there were too many mismatches.
    pub(crate) async fn mismatched(&mut self, contributors: Contributors) -> Result<(), FillError> {
        let digest = self.digest;
        match contributors {
            Contributors::One { source: index, responses } => {
                if responses > 1 {
                    tracing::warn!(%digest, "bytes of several responses do not match the digest, downloading again");
                } else if let Some(source) = self.list.get(index) {
                    tracing::error!(%digest, %source, "a source sent bytes that do not match the digest");
                    self.deprioritize(source).await;
                }
            }
            Contributors::Several => {
                tracing::error!(%digest, "bytes of several downloads do not match the digest, downloading again");
            }
            Contributors::None => {}
        }
        let left = self.choice.mismatched(contributors, self.list.len());
        self.sync_role();
        left
    }

    async fn deprioritize(&self, source: &Source) {
        let Some(source) = source.upstream() else { return };
        let until = Millis::now().after(self.state.config.fills.set_aside_for);
        let (upstream, repository) = (source.upstream(), source.repository());
        let recorded = blobs::demote_source(&self.state.db, self.digest, upstream, repository, until).await;
        if let Err(error) = recorded {
            tracing::warn!(digest = %self.digest, upstream, %error, "failed to deprioritize source");
        }
    }

    /// Waits until this node may store the blob: in a shared storage, the holder of the lease stores it.
    ///
    /// # Errors
    /// [`FillError::Stopped`]: `stop` was cancelled meanwhile.
    pub(crate) async fn wait_until_storable(&mut self, stop: &CancellationToken) -> Result<(), FillError> {
        let mut delays = Delays::new(MIN_STORED_CHECK_DELAY, MAX_STORED_CHECK_DELAY);
        while self.state.store.is_shared() && !self.is_leader() {
            // An unavailable storage is queried again: the holder also waits for it.
            if self.state.store.head(self.digest).await.is_ok_and(|found| found.is_some()) {
                return Ok(());
            }
            if let Some(cluster) = &self.state.cluster
                && let Ok(role @ Role::Holder(_)) =
                    lease::acquire_or_follow(cluster, self.digest, &self.offset).await
            {
                self.assume(cluster, role);
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(delays.next_delay()) => {}
                () = stop.cancelled() => return Err(FillError::Stopped),
            }
        }
        Ok(())
    }

    /// Whether this node downloads from upstreams, and stores the blob where the storage is shared.
    pub(crate) fn is_leader(&self) -> bool {
        self.following().is_none()
    }

    /// Releases the lease, or stops following its holder.
    pub(crate) async fn release_lease(&mut self) {
        self.choice.follow(None);
        if let Some(Role::Holder(lease)) = self.role.take() {
            lease.release().await;
        }
    }
}

fn peer_source(cluster: &Cluster, peer: Node) -> Source {
    Source::Peer(PeerSource::new(cluster.peers.clone(), peer))
}
