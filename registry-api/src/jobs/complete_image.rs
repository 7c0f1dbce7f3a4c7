//! Completes an image: fetches the content that clients of its manifest will request next.
//!
//! Content nodes fill the blobs and share each fill with the clients that read it. No blob byte passes here.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use internal_api::FillState;
use oci_types::{
    Digest, Manifest, UpstreamFailure, constant_blobs,
    manifest::{Descriptor, Platform},
};
use shared_models::db::platforms;
use tokio::time::timeout;
use upstream_client::Priority;

use super::{Job, JobContext, JobError};
use crate::{
    config::Prefetch, error::ApiError, job_queue::CompleteImage, pull, record, resolve::Target,
    state::AppState,
};

/// The maximum depth of nested indexes.
const MAX_DEPTH: usize = 3;

/// The maximum number of manifests, and of blobs, that one job fetches. Clients fetch the rest.
const MAX_MANIFESTS: usize = 1_000;
const MAX_BLOBS: usize = 10_000;

/// The minimum number of bytes that a fill receives in a wait of 20 s. A wait with fewer of them is slow.
const MIN_PROGRESS: u64 = 1024 * 1024;

/// The number of consecutive slow waits for a fill before the job is retried later.
const MAX_SLOW_WAITS: u32 = 6;

/// The time limit of the confirmation of all blobs. The fills begin after it in any case.
const MAX_CONFIRM_TIME: Duration = Duration::from_mins(2);

/// The maximum number of concurrent fills of an image.
const MAX_CONCURRENT_FILLS: usize = 3;

impl Job for CompleteImage {
    async fn run(&self, context: &JobContext) -> Result<(), JobError> {
        let state = &context.state;
        let Self { namespace, upstream, repository, manifest } = self;
        let target = state.resolver.upstream_repository(namespace, upstream, repository.clone());
        let target = target.map_err(|_| {
            JobError::Permanent("no namespace of the configuration admits this repository".to_owned())
        })?;
        let target = Arc::new(target);
        let mut blobs = collect_blobs(state, &target, manifest.clone()).await?;
        blobs.retain(|digest| constant_blobs::bytes(digest).is_none());
        if timeout(MAX_CONFIRM_TIME, confirm_all(state, &target, &blobs)).await.is_err() {
            tracing::info!(repository = %target.repository, "upstream is slow, some blobs are not confirmed");
        }
        context.progress.set_total(blobs.len());
        fill_all(context, blobs).await
    }
}

/// Fetches the manifests below `root`, level by level, and returns the digests of their blobs.
async fn collect_blobs(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    root: Digest,
) -> Result<Vec<Digest>, JobError> {
    let mut seen = HashSet::new();
    let mut blobs = Vec::new();
    let mut level = vec![root];
    let mut fetched = 0;
    for _ in 0..=MAX_DEPTH {
        let mut next = Vec::new();
        for digest in level.into_iter().filter(|digest| seen.insert(digest.clone())).collect::<Vec<_>>() {
            if fetched == MAX_MANIFESTS || blobs.len() >= MAX_BLOBS {
                tracing::info!(repository = %target.repository, "completing a part of a large image");
                break;
            }
            fetched += 1;
            let manifest = manifest(state, target, &digest).await?;
            blobs.extend(manifest.blobs().map(|item| item.digest.clone()));
            let filter = PlatformFilter::of(state, target).await?;
            let children = manifest.children().filter(|child| filter.matches(child));
            next.extend(children.map(|child| child.digest.clone()));
        }
        level = next;
    }
    blobs.retain(|digest| seen.insert(digest.clone()));
    Ok(blobs)
}

async fn manifest(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
) -> Result<Manifest, JobError> {
    let stored = match record::manifest(state, digest).await? {
        Some(stored) => stored,
        None => pull::manifest::pull(state, target, digest, Priority::Background).await?.0,
    };
    Manifest::parse(&stored.body, Some(&stored.media_type))
        .map_err(|error| JobError::Permanent(format!("invalid manifest in the database: {error}")))
}

/// Which children of an index belong to the image.
enum PlatformFilter {
    All,
    AnyOf(Vec<Platform>),
}

impl PlatformFilter {
    /// The filter of the namespace: the platforms that it lists, else those that its clients have requested.
    async fn of(state: &AppState, target: &Target) -> Result<Self, JobError> {
        let namespace = &target.namespace;
        if namespace.prefetch == Prefetch::All {
            return Ok(Self::All);
        }
        if !namespace.platforms.is_empty() {
            return Ok(Self::AnyOf(namespace.platforms.clone()));
        }
        let requested = platforms::list(&state.db, &namespace.prefix).await.map_err(ApiError::from)?;
        Ok(Self::AnyOf(requested))
    }

    fn matches(&self, child: &Descriptor) -> bool {
        match self {
            Self::All => true,
            Self::AnyOf(platforms) => {
                child.platform.as_ref().is_some_and(|platform| platforms.contains(platform))
            }
        }
    }
}

/// Confirms the claims that do not suffice, while the upstream is available.
async fn confirm_all(state: &Arc<AppState>, target: &Arc<Target>, blobs: &[Digest]) {
    for digest in blobs {
        if let Err(error) = pull::blob::pull(state, target, digest, true, "", Priority::Background).await {
            tracing::debug!(repository = %target.repository, %digest, %error, "failed to confirm a blob");
        }
    }
}

/// Fills the blobs. One that fails does not keep the others.
async fn fill_all(context: &JobContext, blobs: Vec<Digest>) -> Result<(), JobError> {
    let fills = blobs.into_iter().map(|digest| async move {
        fill(&context.state, &digest).await?;
        context.progress.add_done();
        Ok(())
    });
    let results: Vec<_> = stream::iter(fills).buffer_unordered(MAX_CONCURRENT_FILLS).collect().await;
    results.into_iter().collect()
}

/// Starts or joins the fill of a blob, and waits for its end while enough bytes arrive. A fill that is not waited for
/// continues.
async fn fill(state: &AppState, digest: &Digest) -> Result<(), JobError> {
    let mut progress = FillProgress::default();
    loop {
        let node = state.nodes.internal_url(digest).await?;
        let status = state.node_client.start_fill(&node, digest).await.map_err(|error| JobError::Retry {
            reason: format!("failed to start a fill: {error}"),
            after: None,
        })?;
        match status.state {
            FillState::Stored => return Ok(()),
            FillState::Running if progress.suffices(status.present) => {}
            FillState::Running => {
                let reason = "a download makes too little progress".to_owned();
                return Err(JobError::Retry { reason, after: None });
            }
            FillState::Failed => {
                let after = status.retry_after();
                return Err(JobError::Retry { reason: status.error.unwrap_or_default(), after });
            }
        }
    }
}

/// The progress of a fill from wait to wait.
#[derive(Debug, Default)]
struct FillProgress {
    present: u64,
    slow_waits: u32,
}

impl FillProgress {
    /// Whether to wait again for a fill with `present` bytes.
    fn suffices(&mut self, present: u64) -> bool {
        let is_slow = present.saturating_sub(self.present) < MIN_PROGRESS;
        self.slow_waits = if is_slow { self.slow_waits + 1 } else { 0 };
        self.present = present;
        self.slow_waits <= MAX_SLOW_WAITS
    }
}

impl From<ApiError> for JobError {
    fn from(error: ApiError) -> Self {
        let retry = |reason: &str, after| Self::Retry { reason: reason.to_owned(), after };
        match error {
            ApiError::Upstream { failure, .. } => match failure {
                UpstreamFailure::NotFound | UpstreamFailure::Denied => {
                    Self::Permanent("the upstream has no such manifest, or denies access".to_owned())
                }
                UpstreamFailure::Unsupported => Self::Permanent("the manifest is not supported".to_owned()),
                UpstreamFailure::RateLimited { retry_after } => retry("upstream rate limited", retry_after),
                UpstreamFailure::Unavailable { retry_after } => retry("upstream unavailable", retry_after),
                UpstreamFailure::BadGateway => retry("upstream failed", None),
                UpstreamFailure::Timeout => retry("upstream timed out", None),
            },
            error => retry(&error.to_string(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of waits for a fill that receives `bytes` in each, at most 100.
    fn waits(bytes: impl Fn(u64) -> u64) -> usize {
        let (mut progress, mut present) = (FillProgress::default(), 0);
        let suffices = |wait| {
            present += bytes(wait);
            progress.suffices(present)
        };
        (0..100).map(suffices).take_while(|suffices| *suffices).count()
    }

    #[test]
    fn a_fill_is_waited_for_while_enough_bytes_arrive() {
        assert_eq!(waits(|_| MIN_PROGRESS), 100);
        assert_eq!(waits(|wait| if wait % 7 == 6 { MIN_PROGRESS } else { 0 }), 100);
        for bytes in [0, 1, MIN_PROGRESS - 1] {
            assert_eq!(waits(|_| bytes), 6, "{bytes}");
            assert_eq!(waits(|wait| if wait == 0 { MIN_PROGRESS } else { bytes }), 7, "{bytes}");
        }
    }
}
