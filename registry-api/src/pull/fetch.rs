//! Gets a manifest from upstream, checks it, and records it.

use std::sync::Arc;

use oci_types::{Manifest, Reference};
use shared_models::db::{
    manifests::{NewManifest, StoredManifest},
    record::TagCheck,
};
use upstream_client::Priority;

use super::{decide::Failure, failure::failure};
use crate::{error::ApiError, record, resolve::Target, state::AppState};

/// Why a manifest was not fetched.
#[derive(Debug, Clone)]
pub(crate) enum FetchError {
    /// Upstream did not give it, or gave something else.
    Upstream(Failure),
    /// It could not be recorded.
    Here(ApiError),
}

/// Fetches what `reference` names, stores it, and points `tag` at it where there is one.
pub(crate) async fn manifest(
    state: &AppState,
    target: &Target,
    reference: &Reference,
    tag: Option<&TagCheck>,
    priority: Priority,
) -> Result<Arc<StoredManifest>, FetchError> {
    let upstream = target.upstream.client.name();
    let refused = |error: &dyn std::fmt::Display, failure: Failure| {
        tracing::warn!(upstream, repository = %target.repository, %reference, "a manifest could not be fetched: {error}");
        FetchError::Upstream(failure)
    };
    let fetched = target
        .upstream
        .client
        .get_manifest(&target.upstream_name, reference, priority)
        .await
        .map_err(|error| refused(&error, failure(&error)))?;
    let parsed = Manifest::parse(&fetched.body, fetched.media_type.as_ref())
        .map_err(|error| refused(&error, Failure::Bad))?;
    let manifest = NewManifest { digest: fetched.digest, parsed, body: fetched.body };
    record::fetched(state, target, manifest, tag).await.map_err(FetchError::Here)
}
