//! A tag as it is in the database: what it names, and how old its last check is.

use std::time::Duration;

use oci_types::{Millis, Tag, UpstreamFailure};
use shared_models::db::tags::{self, TagRow};

use super::decide;
use crate::{
    answer::{ManifestAnswer, ManifestResult},
    cache_status::Outcome,
    caches::KeyRef,
    error::ApiError,
    record,
    resolve::Target,
    state::AppState,
};

/// A tag in the database.
#[derive(Clone)]
pub(super) struct LocalTag {
    pub(super) row: Option<TagRow>,
    /// When the row was read.
    pub(super) now: Millis,
}

impl LocalTag {
    pub(super) async fn find(state: &AppState, target: &Target, tag: &Tag) -> Result<Self, ApiError> {
        if let Some(cached) = Self::cached(state, target, tag).await {
            return Ok(cached);
        }
        let row = tags::find(&state.db, &target.key, tag).await?;
        if let Some(row) = &row {
            state.caches.tags.insert((target.key.clone(), tag.clone()), row.clone()).await;
        }
        Ok(Self { row, now: Millis::now() })
    }

    pub(super) async fn cached(state: &AppState, target: &Target, tag: &Tag) -> Option<Self> {
        let row = state.caches.tags.get(&KeyRef(&target.key, tag)).await?;
        Some(Self { row: Some(row), now: Millis::now() })
    }

    pub(super) fn updated(self, row: Option<TagRow>) -> Self {
        Self { row, ..self }
    }

    pub(super) fn facts(&self, target: &Target, tag: &Tag, check_began: Millis) -> Option<decide::LocalTag> {
        let policy = &target.upstream.policy;
        let row = self.row.as_ref()?;
        let age = row.checked_at.age(self.now);
        let stale_limit = policy.stale_if_error.map(|limit| policy.tag_ttl.saturating_add(limit));
        Some(decide::LocalTag {
            digest: row.manifest.clone(),
            // A check in the future was recorded with a clock that was ahead.
            fresh: never_moves(target, tag)
                || (age < policy.tag_ttl && !row.checked_at.is_ahead_of(self.now)),
            within_stale_limit: stale_limit.is_none_or(|limit| age <= limit),
            checked_later: row.checked_at > check_began && !row.checked_at.is_ahead_of(self.now),
        })
    }

    fn age(&self) -> Duration {
        self.row.as_ref().map_or(Duration::ZERO, |row| row.checked_at.age(self.now))
    }

    /// The remaining freshness lifetime; `None` for a tag that never moves.
    pub(super) fn ttl(&self, target: &Target, tag: &Tag) -> Option<Duration> {
        (!never_moves(target, tag)).then(|| target.upstream.policy.tag_ttl.saturating_sub(self.age()))
    }

    pub(super) fn stale(&self, target: &Target, failure: UpstreamFailure) -> Outcome {
        Outcome::Stale { failure, since: self.age().saturating_sub(target.upstream.policy.tag_ttl) }
    }

    pub(super) async fn serve(&self, state: &AppState, outcome: Outcome) -> ManifestResult {
        let row = self.row.as_ref().ok_or(ApiError::MissingManifest)?;
        let Some(manifest) = record::manifest(state, &row.manifest).await? else {
            tracing::error!(digest = %row.manifest, "a tag names a manifest whose bytes are missing");
            return Err(ApiError::MissingManifest);
        };
        Ok((ManifestAnswer::Manifest(manifest), outcome))
    }
}

/// Whether a tag is never checked again.
fn never_moves(target: &Target, tag: &Tag) -> bool {
    target.upstream.client.is_offline() || target.namespace.immutable_tags.matching(tag.as_str()).is_some()
}
