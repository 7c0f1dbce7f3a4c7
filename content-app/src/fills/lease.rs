//! Which node downloads a blob: one at a time in the cluster, by a lease in the database.

use std::{sync::Arc, time::Duration};

use internal_api::{BlobPresence, Node, NodeClient};
use oci_types::{Digest, Millis};
use shared_models::db::{Db, DbError, fills, nodes};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::fill::Fill;

/// How long a lease holds without being renewed. A holder that died is followed after this at the latest.
const LASTS: Duration = Duration::from_secs(6);

/// Between two renewals, and between two looks at a lease that another node holds.
const RENEWED_EVERY: Duration = Duration::from_secs(2);

/// How often a lease that is let go while it is asked for is asked for again.
const ATTEMPTS: usize = 5;

/// What a node needs to share its fills with others.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) db: Db,
    pub(crate) node_id: String,
    pub(crate) peers: NodeClient,
    /// A node that has not been heard of for so long is dead.
    pub(crate) dead_after: Duration,
}

/// Who downloads a blob from upstream.
pub(crate) enum Role {
    /// This node.
    Holder(Lease),
    /// Another node, which passes its bytes on.
    Follower(Following),
}

impl Cluster {
    /// Takes the lease of a blob, or names its holder.
    ///
    /// # Errors
    /// The database did not answer, or the lease changes hands faster than it can be asked for.
    pub(crate) async fn seek(&self, fill: &Arc<Fill>) -> Result<Role, DbError> {
        let digest = fill.digest();
        for _ in 0..ATTEMPTS {
            let now = Millis::now();
            if fills::claim(&self.db, digest, &self.node_id, now.after(LASTS), now).await? {
                return Ok(Role::Holder(Lease::renewed(self.clone(), Arc::clone(fill))));
            }
            let Some(held) = fills::holder(&self.db, digest, Millis::now()).await? else { continue };
            if let Some(base) = nodes::internal_url(&self.db, &held.node_id).await? {
                let peer = Node { id: held.node_id, internal_url: base };
                return Ok(Role::Follower(Following::watched(self.clone(), digest.clone(), peer)));
            }
            return Err(DbError::Unavailable(format!("node {} holds it, and is not known", held.node_id)));
        }
        Err(DbError::Unavailable("it changes hands too fast".to_owned()))
    }

    /// Takes the lease away from a node that has no such download any more.
    pub(crate) async fn bereave(&self, digest: &Digest, holder: &Node) {
        let node = holder.id.as_str();
        tracing::info!(%digest, node, "the node that downloaded a blob is gone or has let go of it");
        if let Err(error) = fills::release(&self.db, digest, node).await {
            tracing::warn!(%digest, node, "the lease of a node that is gone runs until its end: {error}");
        }
    }

    /// The other nodes that have a blob stored. None, too, when nobody can say. One that is filling it is none of them: two
    /// such nodes would wait for each other's bytes. The one among those that matters holds the lease.
    pub(crate) async fn with(&self, digest: &Digest) -> Vec<Node> {
        let live = match nodes::live(&self.db, Millis::now().before(self.dead_after)).await {
            Ok(live) => live,
            Err(error) => {
                tracing::warn!(%digest, "other nodes are not asked for a blob: {error}");
                return Vec::new();
            }
        };
        let others = live.into_iter().filter(|node| node.id != self.node_id);
        let asked = others.map(|node| async {
            let peer = Node { id: node.id, internal_url: node.internal_url };
            (self.peers.probe(&peer, digest).await == BlobPresence::Stored).then_some(peer)
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
}

/// This node's right to download one blob, renewed until it is dropped.
pub(crate) struct Lease {
    cluster: Cluster,
    digest: Digest,
    renewal: JoinHandle<()>,
}

impl Lease {
    fn renewed(cluster: Cluster, fill: Arc<Fill>) -> Self {
        let digest = fill.digest().clone();
        let renewing = cluster.clone();
        let renewal = tokio::spawn(async move {
            let Cluster { db, node_id, .. } = renewing;
            loop {
                tokio::time::sleep(RENEWED_EVERY).await;
                let (digest, until) = (fill.digest(), Millis::now().after(LASTS));
                // A lease that could not be renewed is no reason to stop: the clients of this node wait for the bytes.
                match fills::renew(&db, digest, &node_id, until, fill.reach(0)).await {
                    Ok(true) => {}
                    // It ran out while the database was away, and was swept or taken.
                    Ok(false) => match fills::claim(&db, digest, &node_id, until, Millis::now()).await {
                        Ok(true) => {}
                        Ok(false) => {
                            tracing::warn!(%digest, "another node has the lease of a download that goes on here");
                            return;
                        }
                        Err(error) => {
                            tracing::warn!(%digest, "the lease of a download was not taken: {error}")
                        }
                    },
                    Err(error) => tracing::warn!(%digest, "the lease of a download was not renewed: {error}"),
                }
            }
        });
        Self { cluster, digest, renewal }
    }

    /// Lets others have it.
    pub(crate) async fn release(self) {
        self.renewal.abort();
        let Cluster { db, node_id, .. } = &self.cluster;
        if let Err(error) = fills::release(db, &self.digest, node_id).await {
            tracing::warn!(digest = %self.digest, "the lease of a download runs until its end: {error}");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// A download of another node that this node reads along.
pub(crate) struct Following {
    pub(crate) peer: Node,
    /// None when it was told, or will never be.
    lost: Option<oneshot::Receiver<()>>,
    watch: JoinHandle<()>,
}

impl Following {
    /// A connection to a host that lost its power breaks late; its lease runs out soon.
    fn watched(cluster: Cluster, digest: Digest, peer: Node) -> Self {
        let (tell, lost) = oneshot::channel();
        let watched = peer.clone();
        let watch = tokio::spawn(async move {
            let mut look = interval(RENEWED_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                look.tick().await;
                let holds = match fills::holder(&cluster.db, &digest, Millis::now()).await {
                    Ok(held) => held.is_some_and(|held| held.node_id == watched.id),
                    // Nobody knows. The bytes come as long as they come.
                    Err(_) => true,
                };
                if holds {
                    continue;
                }
                let presence = cluster.peers.probe(&watched, &digest).await;
                if !matches!(presence, BlobPresence::Stored | BlobPresence::Filling) {
                    // Who followed may be gone as well.
                    let _ = tell.send(());
                    return;
                }
            }
        });
        Self { peer, lost: Some(lost), watch }
    }

    /// Waits until the node neither holds the lease nor has the blob.
    pub(crate) async fn lost(&mut self) {
        if let Some(lost) = &mut self.lost {
            let told = lost.await;
            self.lost = None;
            if told.is_ok() {
                return;
            }
        }
        // The watch panicked; a connection that breaks still tells.
        std::future::pending::<()>().await;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
