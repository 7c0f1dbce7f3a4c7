//! What a decision says is written, and what memory says of it is brought up to date.

use std::sync::Arc;

use oci_types::{Digest, Manifest, Millis};
use shared_models::db::{
    manifests::{NewManifest, StoredManifest},
    record::{self, TagCheck},
    tags,
};

use super::resolve::Target;
use crate::{error::ApiError, registry::Registry, tasks::complete_image};

/// Stores a manifest that was fetched and verified: with its links, and with `tag` where it was asked for by one.
pub(crate) async fn fetched(
    registry: &Registry,
    target: &Target,
    manifest: NewManifest,
    tag: Option<&TagCheck>,
) -> Result<Arc<StoredManifest>, ApiError> {
    record::manifest(&registry.db, &target.row(), &manifest, tag, Millis::now()).await?;
    let NewManifest { digest, parsed, body } = manifest;
    let stored =
        Arc::new(StoredManifest { digest: digest.clone(), media_type: parsed.media_type.clone(), body });
    registry.memory.manifests.insert(digest.clone(), Arc::clone(&stored)).await;
    linked(registry, target, &digest, tag).await;
    complete_image::queue(registry, target, &digest, &parsed).await;
    Ok(stored)
}

/// Links a manifest that is here already, and its content, to the repository; points `tag` at it where there is one.
/// False when its bytes are not here after all.
pub(crate) async fn adopted(
    registry: &Registry,
    target: &Target,
    digest: &Digest,
    tag: Option<&TagCheck>,
) -> Result<bool, ApiError> {
    if !record::adopt(&registry.db, &target.row(), digest, tag, Millis::now()).await? {
        return Ok(false);
    }
    linked(registry, target, digest, tag).await;
    if let Some(manifest) = registry.manifest(digest).await?
        && let Ok(parsed) = Manifest::parse(&manifest.body, Some(&manifest.media_type))
    {
        complete_image::queue(registry, target, digest, &parsed).await;
    }
    Ok(true)
}

/// Notes that upstream has confirmed that a tag names `digest`; false where another process has seen it elsewhere.
pub(crate) async fn checked(
    registry: &Registry,
    target: &Target,
    check: &TagCheck,
    digest: &Digest,
) -> Result<bool, ApiError> {
    let confirmed = tags::mark_checked(&registry.db, &target.repository, check, digest).await?;
    registry.forget_tag(&target.repository, &check.tag).await;
    Ok(confirmed)
}

async fn linked(registry: &Registry, target: &Target, digest: &Digest, tag: Option<&TagCheck>) {
    registry.memory.links.insert((target.repository.clone(), digest.clone()), ()).await;
    if let Some(check) = tag {
        registry.forget_tag(&target.repository, &check.tag).await;
    }
}
