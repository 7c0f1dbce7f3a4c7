//! Where a client, or a background task, is sent for a blob.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use oci_types::{Digest, Millis, RepositoryName};
use shared_models::db::{
    DbError,
    nodes::{self, NodeRow},
};

use crate::{config::Placement, error::ApiError, state::AppState};

/// How long the list of live nodes is used before it is read again.
const REFRESH: Duration = Duration::from_secs(2);

/// The content nodes that live.
pub(crate) struct Nodes(Cache<(), Arc<Vec<NodeRow>>>);

impl Nodes {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(1).time_to_live(REFRESH).build())
    }

    /// The signed address of a blob's bytes.
    pub(crate) async fn content_url(
        &self,
        state: &AppState,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<String, ApiError> {
        let expires = Millis::now().after(state.config.link_lifetime);
        let path = state.config.link_keys.sign(repository, digest, expires);
        let base = match &state.config.placement {
            Placement::Fixed { public_base, .. } => public_base.clone(),
            Placement::Nodes => self.owner(state, digest).await?.public_url,
        };
        Ok(format!("{}{path}", base.trim_end_matches('/')))
    }

    /// The base of the internal API of the node that owns a digest.
    pub(crate) async fn internal_url(&self, state: &AppState, digest: &Digest) -> Result<String, ApiError> {
        match &state.config.placement {
            Placement::Fixed { internal_base: Some(base), .. } => Ok(base.clone()),
            _ => Ok(self.owner(state, digest).await?.internal_url),
        }
    }

    async fn owner(&self, state: &AppState, digest: &Digest) -> Result<NodeRow, ApiError> {
        let db = state.db.clone();
        let since = Millis::now().before(state.config.node_dead_after);
        let live = async move { nodes::live(&db, since).await.map(Arc::new) };
        let live = self
            .0
            .try_get_with((), live)
            .await
            .map_err(|error: Arc<DbError>| ApiError::from((*error).clone()))?;
        owner(&live, digest).cloned().ok_or(ApiError::NoContentNode)
    }
}

/// After so many times the span that makes it count as dead, a node is forgotten.
const FORGOTTEN_AFTER: u32 = 4;

/// Forgets nodes that have long been dead.
pub(crate) async fn forget_dead(state: &AppState) {
    let before = Millis::now().before(state.config.node_dead_after.saturating_mul(FORGOTTEN_AFTER));
    match nodes::remove_dead(&state.db, before).await {
        Ok(0) => {}
        Ok(forgotten) => tracing::info!(forgotten, "forgot content nodes that have long been dead"),
        Err(error) => tracing::warn!("dead content nodes could not be looked for: {error}"),
    }
}

/// Rendezvous hashing: each node draws a lot for the digest, and the highest owns it. A node that comes or goes moves only
/// the digests that it owns.
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
}
