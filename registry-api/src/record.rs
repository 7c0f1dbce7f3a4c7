//! What a decision says is written, and what memory says of it is brought up to date.

use std::sync::Arc;

use oci_types::{Digest, Manifest, Millis};
use shared_models::db::{
    manifests::{NewManifest, StoredManifest},
    record::{self, TagCheck},
    tags,
};

use crate::{error::ApiError, jobs::complete_image, resolve::Target, state::AppState};

/// Stores a manifest that was fetched and verified: with its links, and with `tag` where it was asked for by one.
pub(crate) async fn fetched(
    state: &AppState,
    target: &Target,
    manifest: NewManifest,
    tag: Option<&TagCheck>,
) -> Result<Arc<StoredManifest>, ApiError> {
    record::manifest(&state.db, &target.row(), &manifest, tag, Millis::now()).await?;
    let NewManifest { digest, parsed, body } = manifest;
    let stored =
        Arc::new(StoredManifest { digest: digest.clone(), media_type: parsed.media_type.clone(), body });
    state.memory.manifests.insert(digest.clone(), Arc::clone(&stored)).await;
    linked(state, target, &digest, tag).await;
    complete_image::queue(state, target, &digest, &parsed).await;
    Ok(stored)
}

/// Links a manifest that is here already, and its content, to the repository; points `tag` at it where there is one.
/// False when its bytes are not here after all.
pub(crate) async fn adopted(
    state: &AppState,
    target: &Target,
    digest: &Digest,
    tag: Option<&TagCheck>,
) -> Result<bool, ApiError> {
    if !record::adopt(&state.db, &target.row(), digest, tag, Millis::now()).await? {
        return Ok(false);
    }
    linked(state, target, digest, tag).await;
    if let Some(manifest) = state.manifest(digest).await?
        && let Ok(parsed) = Manifest::parse(&manifest.body, Some(&manifest.media_type))
    {
        complete_image::queue(state, target, digest, &parsed).await;
    }
    Ok(true)
}

/// Notes that upstream has confirmed that a tag names `digest`; false where another process has seen it elsewhere.
pub(crate) async fn checked(
    state: &AppState,
    target: &Target,
    check: &TagCheck,
    digest: &Digest,
) -> Result<bool, ApiError> {
    let confirmed = tags::mark_checked(&state.db, &target.repository, check, digest).await?;
    state.forget_tag(&target.repository, &check.tag).await;
    Ok(confirmed)
}

async fn linked(state: &AppState, target: &Target, digest: &Digest, tag: Option<&TagCheck>) {
    state.memory.links.insert((target.repository.clone(), digest.clone()), ()).await;
    if let Some(check) = tag {
        state.forget_tag(&target.repository, &check.tag).await;
    }
}
