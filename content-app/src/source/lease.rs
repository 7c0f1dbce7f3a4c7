//! The lease of a download: one node downloads a blob from its upstream, the others follow.

use std::{sync::Arc, time::Duration};

use internal_api::{BlobPresence, Node};
use oci_types::{Digest, Millis};
use shared_models::db::{DbError, fills, nodes};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::state::Cluster;

/// How long a lease lasts without renewal. Followers of a dead holder take over after this time at the latest.
const LEASE_TTL: Duration = Duration::from_secs(6);

/// Interval between two renewals, and between two checks of a lease that another node holds.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);

/// Attempts to acquire a lease that is released meanwhile.
const MAX_ATTEMPTS: usize = 5;

/// How many bytes from the start of the blob are present, for the row of a lease.
pub(crate) type Offset = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The part of this node in the download of a blob.
pub(super) enum Role {
    /// This node downloads from an upstream.
    Holder(Lease),
    /// Another node does, and serves the bytes.
    Follower(Following),
}

/// Acquires the lease of a blob, or finds its holder.
///
/// # Errors
/// The database failed, or the lease changes its holder too often.
pub(super) async fn acquire_or_follow(
    cluster: &Cluster,
    digest: &Digest,
    offset: &Offset,
) -> Result<Role, DbError> {
    let Cluster { db, node_id, .. } = cluster;
    for _ in 0..MAX_ATTEMPTS {
        let now = Millis::now();
        if fills::claim(db, digest, node_id, now.after(LEASE_TTL), now).await? {
            return Ok(Role::Holder(Lease::new(cluster.clone(), digest.clone(), Arc::clone(offset))));
        }
        let Some(lease) = fills::holder(db, digest, Millis::now()).await? else { continue };
        if let Some(internal_url) = nodes::internal_url(db, &lease.node_id).await? {
            let peer = Node { id: lease.node_id, internal_url };
            return Ok(Role::Follower(Following::new(cluster.clone(), digest.clone(), peer)));
        }
        return Err(DbError::unavailable(format!("unknown node {} holds the lease", lease.node_id)));
    }
    Err(DbError::unavailable("the lease changes its holder too often".to_owned()))
}

/// Deletes the lease of a node that no longer downloads the blob.
pub(super) async fn release_dead_holder(cluster: &Cluster, digest: &Digest, holder: &Node) {
    let node = holder.id.as_str();
    tracing::info!(%digest, node, "the holder of the lease is dead or has released it");
    if let Err(error) = fills::release(&cluster.db, digest, node).await {
        tracing::warn!(%digest, node, %error, "failed to release the lease of a dead node; it will expire");
    }
}

/// The other nodes that have the blob stored; none where the database fails. Nodes that are filling the blob are not among
/// them, since two nodes could then wait for each other's bytes: the one to follow holds the lease.
pub(super) async fn peers_with_blob(cluster: &Cluster, digest: &Digest) -> Vec<Node> {
    let live = match nodes::live(&cluster.db, cluster.dead_after, Millis::now()).await {
        Ok(live) => live,
        Err(error) => {
            tracing::warn!(%digest, %error, "failed to list nodes; peers are not used as sources");
            return Vec::new();
        }
    };
    let peers = live.into_iter().filter(|node| node.id != cluster.node_id);
    let probes = peers.map(|node| async {
        let peer = Node { id: node.id, internal_url: node.internal_url };
        (cluster.peers.probe(&peer, digest).await == BlobPresence::Stored).then_some(peer)
    });
    futures::future::join_all(probes).await.into_iter().flatten().collect()
}

/// This node's exclusive right to download one blob, renewed until it is dropped.
pub(super) struct Lease {
    cluster: Cluster,
    digest: Digest,
    renewal: JoinHandle<()>,
}

impl Lease {
    fn new(cluster: Cluster, digest: Digest, offset: Offset) -> Self {
        let renewal = tokio::spawn(renew_loop(cluster.clone(), digest.clone(), offset));
        Self { cluster, digest, renewal }
    }

    /// Releases the lease.
    pub(super) async fn release(self) {
        self.renewal.abort();
        let Cluster { db, node_id, .. } = &self.cluster;
        if let Err(error) = fills::release(db, &self.digest, node_id).await {
            tracing::warn!(digest = %self.digest, %error, "failed to release lease; it will expire");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Renews the lease. A failure does not stop the download: the clients of this node wait for its bytes.
async fn renew_loop(cluster: Cluster, digest: Digest, offset: Offset) {
    let Cluster { db, node_id, .. } = cluster;
    // Aborted when the lease is dropped.
    loop {
        tokio::time::sleep(RENEW_INTERVAL).await;
        let until = Millis::now().after(LEASE_TTL);
        let renewed = match fills::renew(&db, &digest, &node_id, until, offset()).await {
            // The lease expired while the database was unavailable, and was deleted or acquired by another node.
            Ok(false) => fills::claim(&db, &digest, &node_id, until, Millis::now()).await,
            renewed => renewed,
        };
        match renewed {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(%digest, "another node acquired the lease of a running download");
                return;
            }
            Err(error) => tracing::warn!(%digest, %error, "failed to renew lease"),
        }
    }
}

/// A fill of another node that this node follows.
pub(super) struct Following {
    pub(super) peer: Node,
    lost: CancellationToken,
    check: JoinHandle<()>,
}

impl Following {
    fn new(cluster: Cluster, digest: Digest, peer: Node) -> Self {
        let lost = CancellationToken::new();
        let (watched, found_lost) = (peer.clone(), lost.clone());
        let check = tokio::spawn(async move {
            wait_until_lost(&cluster, &digest, &watched).await;
            found_lost.cancel();
        });
        Self { peer, lost, check }
    }

    /// Waits until the peer neither holds the lease nor has the blob.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.check.abort();
    }
}

/// A connection to a host that lost power breaks late, but the lease of the host expires soon.
async fn wait_until_lost(cluster: &Cluster, digest: &Digest, peer: &Node) {
    let mut check = interval(RENEW_INTERVAL);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Dropped with the fill that follows.
    loop {
        check.tick().await;
        let is_holder = match fills::holder(&cluster.db, digest, Millis::now()).await {
            Ok(lease) => lease.is_some_and(|lease| lease.node_id == peer.id),
            // The holder is unknown. The download continues as long as bytes arrive.
            Err(_) => true,
        };
        if !is_holder {
            let presence = cluster.peers.probe(peer, digest).await;
            if !matches!(presence, BlobPresence::Stored | BlobPresence::Filling) {
                return;
            }
        }
    }
}
