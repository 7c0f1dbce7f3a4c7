//! A manifest by tag: gather facts, decide, act.

use std::{sync::Arc, time::Duration};

use oci_types::{MediaType, Millis, Reference, RepositoryName, Tag, media_type::OCI_MANIFEST};
use shared_models::db::{
    manifests::{self, StoredManifest},
    record::TagCheck,
    tags::{self, TagRow},
};
use tokio::sync::watch;
use upstream_client::{ManifestHead, Priority};

use super::{
    decide::{self, Failure, LocalTag, TagDecision, TagFacts, Tagged, Upstream},
    failure::failure,
    fetch::{self, FetchError},
    manifest::{Answer, Described, Pulled, fetch_once, refused},
};
use crate::{
    cache_status::Outcome,
    caches::{In, Missing},
    config::WhenDeleted,
    error::{ApiError, Asked},
    record,
    resolve::Target,
    single_flight::{First, Flights},
    state::AppState,
};

/// The checks of tags that run now: by repository, tag, and whether only headers are wanted. The early word is what
/// upstream's `HEAD` said of a manifest that is being fetched.
pub(crate) type TagFlights = Flights<(RepositoryName, Tag, bool), Described, Pulled>;

/// Answers a manifest by its tag.
pub(crate) async fn pull(state: &Arc<AppState>, target: &Arc<Target>, tag: &Tag, head: bool) -> Pulled {
    let local = LocalCopy::find(state, target, tag).await?;
    let facts = local.facts(target, tag, Upstream::NotAsked);
    if let TagDecision::Serve(_) = decide::tag(&facts) {
        return local.serve(state, Outcome::Hit { ttl: local.ttl(target, tag) }).await;
    }
    let missing = Missing::Reference(target.repository.clone(), tag.to_string());
    if facts.local.is_none() && state.memory.missing.contains_key(&missing) {
        return Err(ApiError::Refused { asked: Asked::Manifest, refusal: Failure::NotFound, negative: true });
    }
    let only_head = head && !target.upstream.fetch_on_head;
    let key = (target.repository.clone(), tag.clone(), only_head);
    let (flight, joined) = state
        .tag_flights
        .join(key, |early| check(Arc::clone(state), Arc::clone(target), tag.clone(), only_head, early));
    let told = async {
        if !head {
            return First::Result(flight.result().await);
        }
        flight.first().await
    };
    let told = match &facts.local {
        // A copy is at hand: the client does not wait for a slow upstream. The check goes on for the next one.
        Some(_) => match tokio::time::timeout(state.config.revalidate_wait, told).await {
            Ok(told) => told,
            Err(_) => return late(state, target, tag, &local).await,
        },
        None => told.await,
    };
    match told {
        First::Early(described) => Ok((Answer::Described(described), Outcome::Forwarded)),
        First::Result(Some(Ok((answer, Outcome::Miss)))) if joined => Ok((answer, Outcome::Collapsed)),
        First::Result(Some(pulled)) => pulled,
        First::Result(None) => Err(ApiError::Internal),
    }
}

/// Upstream takes too long and a copy is here.
async fn late(state: &AppState, target: &Target, tag: &Tag, local: &LocalCopy) -> Pulled {
    let facts = local.facts(target, tag, Upstream::Failed(Failure::Timeout));
    match decide::tag(&facts) {
        TagDecision::Stale(_, failure) => local.serve(state, local.stale(target, failure)).await,
        _ => Err(refused(Failure::Timeout)),
    }
}

/// Asks upstream, decides, and acts until there is an answer.
async fn check(
    state: Arc<AppState>,
    target: Arc<Target>,
    tag: Tag,
    only_head: bool,
    early: watch::Sender<Option<Described>>,
) -> Pulled {
    let mut local = LocalCopy::find(&state, &target, &tag).await?;
    let mut upstream = Upstream::NotAsked;
    let mut described = None;
    let mut observed = TagCheck { tag: tag.clone(), began: local.now };
    loop {
        match decide::tag(&local.facts(&target, &tag, upstream.clone())) {
            TagDecision::Serve(_) => {
                return local.serve(&state, Outcome::Hit { ttl: local.ttl(&target, &tag) }).await;
            }
            TagDecision::Ask => {
                observed.began = Millis::now();
                (upstream, described) = ask(&state, &target, &tag).await?;
            }
            TagDecision::Revalidated(digest) => {
                if record::checked(&state, &target, &observed, &digest).await? {
                    return local.serve(&state, Outcome::Revalidated).await;
                }
                // Another process has moved the tag since it was looked up here.
                local = LocalCopy::find(&state, &target, &tag).await?;
            }
            TagDecision::Stale(_, failure) => {
                let (repository, reason) = (&target.repository, super::failure::name(failure));
                tracing::warn!(%repository, %tag, reason, "serving a tag that upstream could not confirm");
                return local.serve(&state, local.stale(&target, failure)).await;
            }
            TagDecision::Adopt(digest) => {
                let adopted = record::adopted(&state, &target, &digest, Some(&observed)).await?;
                match state.manifest(&digest).await? {
                    Some(manifest) if adopted => {
                        return agreed(&state, &target, &tag, manifest, Outcome::Adopted).await;
                    }
                    _ => upstream = Upstream::Has(Tagged::As { digest, bytes_here: false }),
                }
            }
            TagDecision::Fetch(_) | TagDecision::FetchUnnamed if only_head && described.is_some() => {
                return described
                    .map(|head| (Answer::Described(head), Outcome::Forwarded))
                    .ok_or(ApiError::Internal);
            }
            TagDecision::Fetch(digest) => {
                early.send_replace(described.clone());
                match fetch_once(&state, &target, &digest, Some(&observed), Priority::Client).await {
                    Ok((manifest, _)) => {
                        return agreed(&state, &target, &tag, manifest, Outcome::Miss).await;
                    }
                    Err(error) => upstream = failed(error)?,
                }
            }
            TagDecision::FetchUnnamed => {
                let reference = Reference::Tag(tag.clone());
                observed.began = Millis::now();
                match fetch::manifest(&state, &target, &reference, Some(&observed), Priority::Client).await {
                    Ok(manifest) => {
                        return agreed(&state, &target, &tag, manifest, Outcome::Miss).await;
                    }
                    Err(error) => upstream = failed(error)?,
                }
            }
            TagDecision::Refuse(refusal) => {
                if refusal == Failure::NotFound {
                    let missing = Missing::Reference(target.repository.clone(), tag.to_string());
                    state.memory.missing.insert(missing, ()).await;
                }
                return Err(refused(refusal));
            }
        }
    }
}

/// The answer of one who has seen a tag at `manifest` and has recorded that: this manifest, unless another process has
/// recorded a check that began later. Then both answer what that one has seen.
async fn agreed(
    state: &AppState,
    target: &Target,
    tag: &Tag,
    manifest: Arc<StoredManifest>,
    outcome: Outcome,
) -> Pulled {
    let now = LocalCopy::find(state, target, tag).await?;
    match &now.row {
        Some(row) if row.manifest != manifest.digest => now.serve(state, outcome).await,
        _ => Ok((Answer::Manifest(manifest), outcome)),
    }
}

/// A fetch that failed at upstream is one more thing that upstream said.
fn failed(error: FetchError) -> Result<Upstream<Tagged>, ApiError> {
    match error {
        FetchError::Upstream(failure) => Ok(Upstream::Failed(failure)),
        FetchError::Here(error) => Err(error),
    }
}

/// Asks upstream where the tag points, and looks whether that is here.
async fn ask(
    state: &AppState,
    target: &Target,
    tag: &Tag,
) -> Result<(Upstream<Tagged>, Option<Described>), ApiError> {
    let reference = Reference::Tag(tag.clone());
    match target.upstream.client.head_manifest(&target.upstream_name, &reference, Priority::Client).await {
        Ok(ManifestHead { digest: Some(digest), media_type, size }) => {
            let bytes_here = manifests::stored(&state.db, &digest).await?;
            let described = size.map(|size| Described {
                digest: digest.clone(),
                media_type: media_type.unwrap_or_else(|| MediaType::new(OCI_MANIFEST)),
                size,
            });
            Ok((Upstream::Has(Tagged::As { digest, bytes_here }), described))
        }
        Ok(ManifestHead { digest: None, .. }) => Ok((Upstream::Has(Tagged::Unnamed), None)),
        Err(error) => {
            let (upstream, repository) = (target.upstream.client.name(), &target.upstream_name);
            tracing::debug!(upstream, %repository, %tag, "upstream did not tell where a tag points: {error}");
            Ok((Upstream::Failed(failure(&error)), None))
        }
    }
}

/// The tag as it is known here, at the moment when it was looked up.
struct LocalCopy {
    row: Option<TagRow>,
    now: Millis,
}

impl LocalCopy {
    async fn find(state: &AppState, target: &Target, tag: &Tag) -> Result<Self, ApiError> {
        let row = match state.memory.tags.get(&In(&target.repository, tag)).await {
            Some(row) => Some(row),
            None => {
                let row = tags::find(&state.db, &target.repository, tag).await?;
                if let Some(row) = &row {
                    let key = (target.repository.clone(), tag.clone());
                    state.memory.tags.insert(key, row.clone()).await;
                }
                row
            }
        };
        Ok(Self { row, now: Millis::now() })
    }

    fn facts(&self, target: &Target, tag: &Tag, upstream: Upstream<Tagged>) -> TagFacts {
        let policy = &target.upstream;
        let local = self.row.as_ref().map(|row| {
            let age = row.checked_at.age(self.now);
            LocalTag {
                digest: row.manifest.clone(),
                fresh: never_moves(target, tag) || age < policy.tag_ttl,
                within_stale_limit: policy
                    .stale_if_error
                    .is_none_or(|limit| age <= policy.tag_ttl.saturating_add(limit)),
            }
        });
        TagFacts { local, upstream, serve_deleted: policy.when_deleted == WhenDeleted::Serve }
    }

    fn age(&self) -> Duration {
        self.row.as_ref().map_or(Duration::ZERO, |row| row.checked_at.age(self.now))
    }

    /// How much longer the tag counts as fresh; `None` for one that never moves.
    fn ttl(&self, target: &Target, tag: &Tag) -> Option<Duration> {
        (!never_moves(target, tag)).then(|| target.upstream.tag_ttl.saturating_sub(self.age()))
    }

    fn stale(&self, target: &Target, failure: Failure) -> Outcome {
        Outcome::Stale { failure, since: self.age().saturating_sub(target.upstream.tag_ttl) }
    }

    async fn serve(&self, state: &AppState, outcome: Outcome) -> Pulled {
        let Some(row) = &self.row else { return Err(ApiError::Internal) };
        match state.manifest(&row.manifest).await? {
            Some(manifest) => Ok((Answer::Manifest(manifest), outcome)),
            None => {
                tracing::error!(digest = %row.manifest, "a tag names a manifest whose bytes are not here");
                Err(ApiError::Internal)
            }
        }
    }
}

fn never_moves(target: &Target, tag: &Tag) -> bool {
    target.upstream.offline || target.namespace.immutable_tags.matching(tag.as_str()).is_some()
}
