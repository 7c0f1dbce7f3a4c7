//! What a pull writes to the database, and the caches that it updates.

use std::sync::Arc;

use oci_types::{Digest, Millis};
use shared_models::db::{
    blobs::{self, NewPending},
    links::{LinkedBlob, Proof},
    manifests::{NewManifest, StoredManifest},
    record::{self, Adopted, TagCheck},
    tags::{self, TagRow},
};

use crate::{error::ApiError, resolve::Target, state::AppState};

/// A manifest that a pull has recorded.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(crate) manifest: Arc<StoredManifest>,
    /// The tag that was recorded with it, as it is now: another process may have recorded a later check.
    pub(crate) tag: Option<TagRow>,
}

/// Records a manifest that was fetched and verified, with its links, and with `tag` where there is one.
pub(crate) async fn fetched(
    state: &AppState,
    target: &Target,
    manifest: NewManifest,
    tag: Option<&TagCheck>,
) -> Result<Recorded, ApiError> {
    let row = record::manifest(&state.db, &target.row(), &manifest, tag, Millis::now()).await?;
    let NewManifest { digest, parsed, body } = manifest;
    let stored = StoredManifest { digest, media_type: parsed.media_type, body };
    let manifest = cache_manifest(state, stored).await;
    cache_link(state, target, &manifest.digest).await;
    cache_tag(state, target, tag, row.as_ref()).await;
    Ok(Recorded { manifest, tag: row })
}

/// Links a manifest whose bytes are present, and its content, to the repository; records `tag` where there is one. `None`
/// when its bytes are not present after all.
pub(crate) async fn link_existing(
    state: &AppState,
    target: &Target,
    digest: &Digest,
    tag: Option<&TagCheck>,
) -> Result<Option<Recorded>, ApiError> {
    let adopted = record::adopt(&state.db, &target.row(), digest, tag, Millis::now()).await?;
    let Some(Adopted { tag: row }) = adopted else { return Ok(None) };
    cache_link(state, target, digest).await;
    cache_tag(state, target, tag, row.as_ref()).await;
    Ok(manifest(state, digest).await?.map(|manifest| Recorded { manifest, tag: row }))
}

/// Records that the upstream has confirmed that a tag names `digest`. Returns the tag as it is now: another process may have
/// recorded a later check.
pub(crate) async fn tag_check(
    state: &AppState,
    target: &Target,
    check: &TagCheck,
    digest: &Digest,
) -> Result<Option<TagRow>, ApiError> {
    let row = tags::mark_checked(&state.db, &target.key, check, digest).await?;
    cache_tag(state, target, Some(check), row.as_ref()).await;
    Ok(row)
}

/// Records that the upstream has confirmed a blob: on demand, if it is unknown, with a pending link.
pub(crate) async fn confirmed_blob(
    state: &AppState,
    target: &Target,
    digest: &Digest,
    size: Option<u64>,
) -> Result<LinkedBlob, ApiError> {
    let now = Millis::now();
    let pending = NewPending { repository: target.row(), digest: digest.clone(), size, now };
    let blob = blobs::record_pending(&state.db, &pending).await?;
    let linked = LinkedBlob { blob, proof: Proof::Confirmed };
    state.caches.blobs.insert((target.key.clone(), digest.clone()), linked.clone()).await;
    Ok(linked)
}

/// A manifest whose bytes are present, from the cache or the database.
pub(crate) async fn manifest(
    state: &AppState,
    digest: &Digest,
) -> Result<Option<Arc<StoredManifest>>, ApiError> {
    if let Some(manifest) = state.caches.manifests.get(digest).await {
        return Ok(Some(manifest));
    }
    let Some(stored) = shared_models::db::manifests::load(&state.db, digest).await? else {
        return Ok(None);
    };
    Ok(Some(cache_manifest(state, stored).await))
}

/// Caches a manifest that is in the database.
pub(crate) async fn cache_manifest(state: &AppState, manifest: StoredManifest) -> Arc<StoredManifest> {
    let manifest = Arc::new(manifest);
    state.caches.manifests.insert(manifest.digest.clone(), Arc::clone(&manifest)).await;
    manifest
}

/// Caches that the repository may serve a manifest.
pub(crate) async fn cache_link(state: &AppState, target: &Target, digest: &Digest) {
    state.caches.manifest_links.insert((target.key.clone(), digest.clone()), ()).await;
}

async fn cache_tag(state: &AppState, target: &Target, check: Option<&TagCheck>, row: Option<&TagRow>) {
    let Some(check) = check else { return };
    let key = (target.key.clone(), check.tag.clone());
    match row {
        Some(row) => state.caches.tags.insert(key, row.clone()).await,
        None => state.caches.tags.invalidate(&key).await,
    }
}
