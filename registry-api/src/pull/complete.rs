//! Queues the completion of a pulled image: the content that its client will request next.

use oci_types::Manifest;
use shared_models::db::manifests::StoredManifest;

use crate::{
    config::Prefetch,
    job_queue::{CompleteImage, QueuedJob as _},
    resolve::Target,
    state::AppState,
};

/// Queues the completion of a manifest, once for any number of clients. A failure costs only the head start.
pub(crate) async fn queue(state: &AppState, target: &Target, manifest: &StoredManifest) {
    if target.namespace.prefetch == Prefetch::None {
        return;
    }
    match Manifest::parse(&manifest.body, Some(&manifest.media_type)) {
        Ok(parsed) if !parsed.descriptors.is_empty() => {}
        _ => return,
    }
    let job = CompleteImage {
        namespace: target.namespace.prefix.clone(),
        upstream: target.upstream.client.name().to_owned(),
        repository: target.upstream_name.clone(),
        manifest: manifest.digest.clone(),
    };
    if let Err(error) = state.jobs.enqueue(&job).await {
        tracing::warn!(kind = CompleteImage::KIND, key = job.key(), %error, "failed to queue a job");
    }
}
