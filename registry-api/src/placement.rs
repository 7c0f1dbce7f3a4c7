//! Which content node a client or a job is sent to for a blob.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use internal_api::LinkKeys;
use moka::future::Cache;
use oci_types::{Digest, Millis, RepositoryName};
use parking_lot::Mutex;
use shared_models::db::{
    Db, DbError,
    nodes::{self, NodeRow},
};

use crate::{
    config::{Config, Placement},
    error::ApiError,
    heartbeats::Heartbeats,
};

/// The cache lifetime of the list of live nodes.
const NODES_TTL: Duration = Duration::from_secs(2);

/// A node is deleted from the database after this many times the interval after which it counts as dead.
const PRUNE_AFTER_MISSED: u32 = 4;

/// The rate in bytes per second at which a blob can be read within the lifetime of a link: clients use one link for all
/// ranges of a blob.
const MIN_READ_RATE: u64 = 1_000_000;

/// The maximum by which the size of a blob extends the lifetime of a link.
const MAX_READ_TIME: Duration = Duration::from_hours(24);

/// The lifetime of a link to a blob of `size` bytes.
pub(crate) fn lifetime(min: Duration, size: Option<u64>) -> Duration {
    min.max(Duration::from_secs(size.unwrap_or(0) / MIN_READ_RATE).min(MAX_READ_TIME))
}

/// Selects content nodes and makes URLs for them.
pub(crate) struct NodeSelector {
    placement: Placement,
    link_keys: Arc<LinkKeys>,
    link_lifetime: Duration,
    dead_after: Duration,
    db: Db,
    heartbeats: Mutex<Heartbeats>,
    live: Cache<(), Arc<Vec<NodeRow>>>,
    /// The list that was read last, for the time in which the database is unavailable.
    last_live: Mutex<Arc<Vec<NodeRow>>>,
}

impl NodeSelector {
    pub(crate) fn new(config: &Config, db: Db) -> Self {
        Self {
            placement: config.placement.clone(),
            link_keys: Arc::clone(&config.link_keys),
            link_lifetime: config.link_lifetime,
            dead_after: config.node_dead_after,
            db,
            heartbeats: Mutex::default(),
            live: Cache::builder().max_capacity(1).time_to_live(NODES_TTL).build(),
            last_live: Mutex::default(),
        }
    }

    /// The content link of a blob of `size` bytes. It begins with `own_base` if the blob is served by the public listener of
    /// this service.
    ///
    /// # Errors
    /// [`ApiError::NoContentNode`]; the database fails.
    pub(crate) async fn content_url(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: Option<u64>,
        own_base: &str,
    ) -> Result<String, ApiError> {
        let expires = Millis::now().after(lifetime(self.link_lifetime, size));
        let path = self.link_keys.sign(repository, digest, expires);
        let base = match &self.placement {
            Placement::Fixed { public_base, .. } => public_base.clone(),
            Placement::Nodes => self.owner(digest).await?.public_url,
        };
        let base = if base.is_empty() { own_base } else { &base };
        Ok(format!("{}{path}", base.trim_end_matches('/')))
    }

    /// The base URL of the internal API of the node that owns a digest.
    ///
    /// # Errors
    /// [`ApiError::NoContentNode`]; the database fails.
    pub(crate) async fn internal_url(&self, digest: &Digest) -> Result<String, ApiError> {
        match &self.placement {
            Placement::Fixed { internal_base: Some(base), .. } => Ok(base.clone()),
            _ => Ok(self.owner(digest).await?.internal_url),
        }
    }

    /// Deletes nodes that have been dead for long. Returns their number.
    ///
    /// # Errors
    /// The database fails.
    pub(crate) async fn prune_dead_nodes(&self) -> Result<usize, DbError> {
        let alive = self.alive().await?.into_iter().map(|node| node.id).collect();
        let before = Millis::now().before(self.dead_after.saturating_mul(PRUNE_AFTER_MISSED));
        nodes::remove_dead(&self.db, before, alive).await
    }

    /// The nodes that are alive, also those that drain.
    async fn alive(&self) -> Result<Vec<NodeRow>, DbError> {
        let (read_at, now) = (Instant::now(), Millis::now());
        let mut nodes = nodes::list(&self.db).await?;
        let max_age = nodes::max_heartbeat_age(&self.db, self.dead_after);
        let mut heartbeats = self.heartbeats.lock();
        heartbeats.observe(&nodes, read_at);
        nodes.retain(|node| node.is_recent(max_age, now) || heartbeats.is_recent(&node.id, max_age, read_at));
        Ok(nodes)
    }

    async fn owner(&self, digest: &Digest) -> Result<NodeRow, ApiError> {
        owner(&self.live().await?, digest).cloned().ok_or(ApiError::NoContentNode)
    }

    /// The nodes that are alive and not draining. While the database is unavailable, those of the last read: they do not
    /// depend on it for what they have stored.
    async fn live(&self) -> Result<Arc<Vec<NodeRow>>, ApiError> {
        let last = || Some(Arc::clone(&self.last_live.lock())).filter(|last| !last.is_empty());
        if !self.db.is_available()
            && let Some(last) = last()
        {
            return Ok(last);
        }
        let live = async {
            let mut alive = self.alive().await?;
            alive.retain(|node| !node.draining);
            Ok::<_, DbError>(Arc::new(alive))
        };
        match self.live.try_get_with((), live).await {
            Ok(live) => {
                *self.last_live.lock() = Arc::clone(&live);
                Ok(live)
            }
            Err(error) => match (&*error, last()) {
                (DbError::Unavailable(_), Some(last)) => Ok(last),
                (error, _) => Err(ApiError::from(error.clone())),
            },
        }
    }
}

/// The node with the highest hash of node and digest owns the digest (rendezvous hashing). A node that joins or leaves moves
/// only the digests that it owns.
fn owner<'a>(nodes: &'a [NodeRow], digest: &Digest) -> Option<&'a NodeRow> {
    nodes.iter().max_by_key(|node| Digest::sha256(format!("{}\n{digest}", node.id).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> NodeRow {
        NodeRow {
            id: id.to_owned(),
            public_url: String::new(),
            internal_url: String::new(),
            heartbeat_at: Millis(0),
            draining: false,
        }
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_digests() {
        let all = [node("a"), node("b"), node("c")];
        let left = [node("a"), node("c")];
        let digests: Vec<_> = (0..300_u32).map(|number| Digest::sha256(&number.to_le_bytes())).collect();
        let mut owned_by_b = 0;
        for digest in &digests {
            let before = &owner(&all, digest).unwrap().id;
            let after = &owner(&left, digest).unwrap().id;
            if before == "b" {
                owned_by_b += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!((60..140).contains(&owned_by_b), "{owned_by_b} of 300");
        assert!(owner(&[], &digests[0]).is_none());
    }

    #[test]
    fn the_lifetime_of_a_link_grows_with_the_blob() {
        let minute = Duration::from_mins(1);
        for (size, expected) in [
            (None, minute),
            (Some(0), minute),
            (Some(60_000_000), minute),
            (Some(3_600_000_000), Duration::from_hours(1)),
            (Some(u64::MAX), Duration::from_hours(24)),
        ] {
            assert_eq!(lifetime(minute, size), expected, "{size:?}");
        }
        let week = Duration::from_hours(7 * 24);
        assert_eq!(lifetime(week, Some(u64::MAX)), week);
    }
}
