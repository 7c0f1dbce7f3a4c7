//! Completes an image in the background: what a client that asked for its manifest will ask for next.
//!
//! The blobs are fetched by the content nodes, so they share the fills that clients start; no byte of one passes here.

use std::{collections::HashSet, sync::Arc};

use futures::{StreamExt, stream};
use internal_api::FillState;
use oci_types::{
    Digest, Manifest, Millis, RepositoryName,
    manifest::{Item, Platform},
};
use serde::{Deserialize, Serialize};
use shared_models::db::{platforms, tasks};
use upstream_client::Priority;

use super::runner::TaskError;
use crate::{
    config::Prefetch,
    error::ApiError,
    pull::{decide::Failure, fetch::FetchError, manifest::fetch_once},
    resolve::Target,
    state::AppState,
};

/// The kind under which the task stands in the table.
pub(crate) const KIND: &str = "complete_image";

/// How deep indexes may be nested.
const DEEPEST: usize = 3;

/// Blobs of one image that are asked for at once.
const BLOBS_AT_ONCE: usize = 3;

#[derive(Serialize, Deserialize)]
struct Payload {
    repository: RepositoryName,
    manifest: Digest,
}

/// Queues the completion of a manifest, once however many clients ask for it. A failure costs only the head start.
pub(crate) async fn queue(state: &AppState, target: &Target, digest: &Digest, parsed: &Manifest) {
    if target.namespace.prefetch == Prefetch::None || parsed.items.is_empty() {
        return;
    }
    let payload = Payload { repository: target.repository.clone(), manifest: digest.clone() };
    let key = format!("{}@{digest}", target.repository);
    let queued = async {
        let payload = serde_json::to_string(&payload).map_err(|error| error.to_string())?;
        tasks::enqueue(&state.db, KIND, &key, &payload, Millis::now())
            .await
            .map_err(|error| error.to_string())
    };
    match queued.await {
        Ok(true) => state.task_queued.notify_one(),
        Ok(false) => {}
        Err(error) => tracing::warn!(key, "an image will not be completed in the background: {error}"),
    }
}

/// Runs the task.
pub(crate) async fn run(state: &Arc<AppState>, payload: &str) -> Result<(), TaskError> {
    let payload: Payload = serde_json::from_str(payload)
        .map_err(|error| TaskError::Hopeless(format!("unreadable payload: {error}")))?;
    let target = state.resolver.resolve(&payload.repository, None).map_err(|_| {
        TaskError::Hopeless("the configuration no longer leads to this repository".to_owned())
    })?;
    let target = Arc::new(target);
    let mut blobs = Vec::new();
    let mut seen = HashSet::new();
    gather(state, &target, payload.manifest, &mut blobs, &mut seen).await?;
    fill_all(state, blobs).await
}

/// Fetches the manifests that belong to `root`, level by level, and lists the blobs that they name.
async fn gather(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    root: Digest,
    blobs: &mut Vec<Digest>,
    seen: &mut HashSet<Digest>,
) -> Result<(), TaskError> {
    let mut level = vec![root];
    for _ in 0..=DEEPEST {
        let mut next = Vec::new();
        for digest in level.drain(..).filter(|digest| seen.insert(digest.clone())).collect::<Vec<_>>() {
            let manifest = manifest(state, target, &digest).await?;
            blobs.extend(manifest.blobs().map(|item| item.digest.clone()));
            let wanted = Wanted::of(state, target).await?;
            next.extend(
                manifest.children().filter(|child| wanted.takes(child)).map(|child| child.digest.clone()),
            );
        }
        level = next;
    }
    blobs.retain(|digest| seen.insert(digest.clone()));
    Ok(())
}

async fn manifest(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
) -> Result<Manifest, TaskError> {
    let stored = match state.manifest(digest).await.map_err(ours)? {
        Some(stored) => stored,
        None => fetch_once(state, target, digest, None, Priority::Background).await.map_err(theirs)?.0,
    };
    Manifest::parse(&stored.body, Some(&stored.media_type))
        .map_err(|error| TaskError::Hopeless(format!("a stored manifest cannot be read: {error}")))
}

/// Which children of an index are fetched.
enum Wanted {
    Every,
    These(Vec<Platform>),
}

impl Wanted {
    async fn of(state: &AppState, target: &Target) -> Result<Self, TaskError> {
        let namespace = &target.namespace;
        if namespace.prefetch == Prefetch::All {
            return Ok(Self::Every);
        }
        if !namespace.platforms.is_empty() {
            return Ok(Self::These(namespace.platforms.clone()));
        }
        let asked_for =
            platforms::list(&state.db, &namespace.prefix).await.map_err(|error| ours(error.into()))?;
        Ok(Self::These(asked_for))
    }

    fn takes(&self, child: &Item) -> bool {
        match self {
            Self::Every => true,
            Self::These(platforms) => {
                child.platform.as_ref().is_some_and(|platform| platforms.contains(platform))
            }
        }
    }
}

async fn fill_all(state: &Arc<AppState>, blobs: Vec<Digest>) -> Result<(), TaskError> {
    let fills = blobs
        .into_iter()
        .filter(|digest| oci_types::constant_blobs::bytes(digest).is_none())
        .map(|digest| async move { fill(state, &digest).await });
    let mut ended = stream::iter(fills).buffer_unordered(BLOBS_AT_ONCE);
    let mut first_error = None;
    while let Some(result) = ended.next().await {
        if let Err(error) = result {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn fill(state: &AppState, digest: &Digest) -> Result<(), TaskError> {
    loop {
        let base = state.nodes.internal_url(state, digest).await.map_err(ours)?;
        let status = state
            .content
            .start_fill(&base, digest)
            .await
            .map_err(|error| TaskError::Again { reason: format!("content node: {error}"), after: None })?;
        match status.state {
            FillState::Stored => return Ok(()),
            FillState::Running => {}
            FillState::Failed => {
                let after = status.retry_after();
                return Err(TaskError::Again { reason: status.error.unwrap_or_default(), after });
            }
        }
    }
}

fn ours(error: ApiError) -> TaskError {
    TaskError::Again { reason: error.to_string(), after: None }
}

fn theirs(error: FetchError) -> TaskError {
    match error {
        FetchError::Upstream(Failure::NotFound | Failure::Denied) => {
            TaskError::Hopeless("upstream has no such manifest, or refuses it".to_owned())
        }
        FetchError::Upstream(Failure::RateLimited { retry_after } | Failure::Unavailable { retry_after }) => {
            TaskError::Again { reason: "upstream asks to come back later".to_owned(), after: retry_after }
        }
        FetchError::Upstream(Failure::Bad | Failure::Timeout) => {
            TaskError::Again { reason: "upstream failed".to_owned(), after: None }
        }
        FetchError::Here(error) => ours(error),
    }
}
