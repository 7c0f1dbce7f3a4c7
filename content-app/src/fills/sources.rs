//! Where the bytes of one fill come from at present: the upstreams in turn, or the node that holds the lease.

use std::{sync::Arc, time::Duration};

use internal_api::BlobPresence;
use oci_types::{Digest, Millis};
use shared_models::db::blobs::{self, BlobSource, BlobState};
use upstream_client::UpstreamError;

use super::{
    choice::Rotation,
    download::DownloadError,
    error::FillError,
    fill::Fill,
    lease::{Cluster, Following, Lease, Role},
    registry::Context,
    source::Source,
};

/// How often what a peer sent may turn out to be wrong before upstream is asked instead.
const WRONG_FROM_PEERS: u32 = 2;

/// The sources of one fill.
pub(super) struct Supply<'a> {
    fill: &'a Arc<Fill>,
    context: &'a Arc<Context>,
    /// An index names a source as long as the fill lasts: those that are rotated through, then peers that were followed.
    sources: Vec<Source>,
    rotation: Rotation,
    way: Way,
    /// Failures of peers in a row, without a byte in between.
    peer_failures: u32,
    wrong_from_peers: u32,
    /// How often all bytes were here and did not match the digest.
    mismatches: usize,
}

/// With what right bytes are fetched.
enum Way {
    /// From upstream, under a lease; or without one, where nobody else could be downloading or nobody can say.
    Own(Option<Lease>),
    /// From the node that holds the lease.
    Along { following: Following, source: usize },
}

impl<'a> Supply<'a> {
    /// Finds the sources of a blob that is `known` so, and takes the lease or follows its holder.
    pub(super) async fn open(
        fill: &'a Arc<Fill>,
        context: &'a Arc<Context>,
        recorded: Vec<BlobSource>,
        known: BlobState,
    ) -> Self {
        let is_recorded = !recorded.is_empty();
        let mut supply = Self {
            fill,
            context,
            sources: Source::among(recorded, |name| context.upstreams.get(name).cloned()),
            rotation: Rotation::new(0),
            way: Way::Own(None),
            peer_failures: 0,
            wrong_from_peers: 0,
            mismatches: 0,
        };
        if let Some(cluster) = &context.cluster
            && known == BlobState::Stored
            && !context.store.is_shared()
        {
            let peers = cluster.with(fill.digest()).await.into_iter();
            let peers = peers.map(|peer| Source::Peer(cluster.peers.clone(), peer));
            supply.sources.splice(0..0, peers);
        }
        supply.rotation = match supply.sources.len() {
            0 if is_recorded => Rotation::unconfigured(),
            sources => Rotation::new(sources),
        };
        supply.seek().await;
        supply
    }

    /// Takes the lease, or follows its holder. Goes on without it when it cannot be asked for: the bytes that clients wait
    /// for come before a download that is saved.
    async fn seek(&mut self) {
        let Some(cluster) = &self.context.cluster else { return };
        match cluster.seek(self.fill).await {
            Ok(role) => self.take(cluster, role),
            Err(error) => {
                let digest = self.digest();
                tracing::warn!(%digest, "downloading without a lease, which cannot be had: {error}");
                self.way = Way::Own(None);
            }
        }
    }

    fn take(&mut self, cluster: &Cluster, role: Role) {
        self.way = match role {
            Role::Holder(lease) => Way::Own(Some(lease)),
            Role::Follower(following) => {
                let (digest, node) = (self.fill.digest(), following.peer.id.as_str());
                tracing::info!(%digest, node, "reading along a download of another node");
                self.sources.push(Source::Peer(cluster.peers.clone(), following.peer.clone()));
                Way::Along { following, source: self.sources.len() - 1 }
            }
        };
    }

    fn digest(&self) -> &'a Digest {
        self.fill.digest()
    }

    /// The sources, by index.
    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The source to ask now, and its index.
    ///
    /// # Errors
    /// None is left; the error is the one that the clients are told.
    pub(super) fn current(&self) -> Result<(usize, Source), FillError> {
        let index = match &self.way {
            Way::Own(_) => self.rotation.current()?,
            Way::Along { source, .. } => *source,
        };
        self.sources.get(index).cloned().map(|source| (index, source)).ok_or(FillError::NoSource)
    }

    /// Bytes came: earlier failures no longer count.
    pub(super) fn progressed(&mut self) {
        self.rotation.progressed();
        self.peer_failures = 0;
    }

    /// Records a failure of a source, and says how long to wait before the next is asked.
    ///
    /// # Errors
    /// The attempts are used up, or the failure is not the source's.
    pub(super) async fn failed(
        &mut self,
        index: usize,
        error: &DownloadError,
        anything_landed: bool,
    ) -> Result<Duration, FillError> {
        let policy = &self.fill.policy;
        if index < self.rotation.sources() {
            return self.rotation.failed(index, error, anything_landed, policy);
        }
        match error {
            DownloadError::Local(error) => return Err(error.clone()),
            DownloadError::Upstream(limited @ UpstreamError::RateLimited { .. }) => {
                return Err(FillError::Upstream(limited.clone()));
            }
            _ => {}
        }
        // A download of a peer that was left already says nothing of the present one.
        let followed = match &self.way {
            Way::Along { following, source } if *source == index => following.peer.clone(),
            _ => return Ok(Duration::ZERO),
        };
        self.peer_failures += 1;
        if self.peer_failures >= policy.attempts {
            self.way = Way::Own(None);
        } else if let Some(cluster) = &self.context.cluster
            && cluster.peers.probe(&followed, self.digest()).await == BlobPresence::Absent
        {
            self.succeed().await;
        }
        Ok(policy.backoff(self.peer_failures))
    }

    /// Waits until the node that is followed is gone; for ever where none is.
    pub(super) async fn lost(&mut self) {
        match &mut self.way {
            Way::Along { following, .. } => following.lost().await,
            Way::Own(_) => std::future::pending().await,
        }
    }

    /// The node that is followed is gone: its lease is taken, or whoever was faster is followed.
    pub(super) async fn succeed(&mut self) {
        if let (Some(cluster), Way::Along { following, .. }) = (&self.context.cluster, &self.way) {
            cluster.bereave(self.digest(), &following.peer).await;
        }
        self.seek().await;
    }

    /// All bytes are here, and are wrong together. Where they are all from one upstream it is asked last from now on; from
    /// several, nobody is blamed, and the next attempt keeps to one source.
    ///
    /// # Errors
    /// No other source is left, no source has sent a byte, or the attempts are used up: one for each source and peer, one
    /// for bytes of an earlier fill, and one for bytes of several sources.
    pub(super) async fn spoiled(&mut self) -> Result<(), FillError> {
        let digest = self.digest();
        self.mismatches += 1;
        if !self.fill.has_contributors() || self.mismatches > self.sources.len() + 2 {
            return Err(FillError::WrongDigest);
        }
        let culprit = self.fill.only_contributor();
        match culprit.and_then(|index| Some((index, self.sources.get(index)?))) {
            Some((index, source)) => {
                tracing::error!(%digest, %source, "a source sent bytes that do not match the digest");
                self.set_aside(source).await;
                if index < self.rotation.sources() {
                    self.rotation.leave_out(index, FillError::WrongDigest);
                }
            }
            None => {
                tracing::error!(%digest, "bytes of several downloads do not match the digest together: fetching them anew");
                self.rotation.stay();
            }
        }
        if matches!(self.way, Way::Along { .. }) {
            self.wrong_from_peers += 1;
            if self.wrong_from_peers >= WRONG_FROM_PEERS {
                self.way = Way::Own(None);
            }
        }
        self.current().map(|_| ())
    }

    async fn set_aside(&self, source: &Source) {
        let Some(from) = source.upstream() else { return };
        let (digest, until) = (self.digest(), Millis::now().after(self.fill.policy.set_aside_for));
        let (upstream, repository) = (from.upstream(), from.repository());
        if let Err(error) =
            blobs::set_aside_source(&self.context.db, digest, upstream, repository, until).await
        {
            tracing::warn!(%digest, upstream, "the source could not be set aside: {error}");
        }
    }

    /// Waits until this node may store the blob: in a storage that all nodes share, its holder does.
    ///
    /// # Errors
    /// The fill was stopped meanwhile.
    pub(super) async fn await_turn(&mut self) -> Result<(), FillError> {
        const FIRST_PAUSE: Duration = Duration::from_millis(250);
        const LONGEST_PAUSE: Duration = Duration::from_secs(5);
        let mut pause = FIRST_PAUSE;
        while self.context.store.is_shared() && matches!(self.way, Way::Along { .. }) {
            // A storage that does not answer is asked again; the holder waits for it, too.
            if self.context.store.locate(self.digest()).await.is_ok_and(|found| found.is_some()) {
                return Ok(());
            }
            if let Some(cluster) = &self.context.cluster
                && let Ok(role @ Role::Holder(_)) = cluster.seek(self.fill).await
            {
                self.take(cluster, role);
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.fill.stopped() => return Err(FillError::Stopped),
            }
        }
        Ok(())
    }

    /// Whether this node is the one to store the blob in a storage that all nodes share.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.way, Way::Own(_))
    }

    /// Lets others have the lease.
    pub(super) async fn close(self) {
        if let Way::Own(Some(lease)) = self.way {
            lease.release().await;
        }
    }
}
