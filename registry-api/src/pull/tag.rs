//! A manifest by tag: local copy, `HEAD`, fetch, record, answer.

use std::{sync::Arc, time::Duration};

use http_server::Resource;
use oci_types::{Digest, MediaType, Millis, Reference, Tag, UpstreamFailure, media_type::MANIFEST_TYPES};
use shared_models::db::{
    manifests::{self, StoredManifest},
    record::TagCheck,
    repositories::RepositoryKey,
};
use upstream_client::{ManifestHead, Priority};

use super::{
    complete,
    decide::{
        self, TagCheckDecision, TagCheckFacts, TagRequestDecision, TagRequestFacts, Upstream, UpstreamTag,
    },
    local_tag::LocalTag,
    manifest,
};
use crate::{
    answer::{ManifestAnswer, ManifestHeaders, ManifestResult, TagCheckProgress},
    cache_status::{Outcome, failure_code},
    caches::{KeyRef, NegativeKey},
    config::WhenDeleted,
    error::{ApiError, Failure},
    record::{self, Recorded},
    resolve::Target,
    single_flight::{Begin, Publisher},
    state::AppState,
};

type TagPublisher = Publisher<(RepositoryKey, Tag), TagCheckProgress>;

/// Answers a request for a tag.
pub(crate) async fn pull(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    tag: &Tag,
    head: bool,
) -> ManifestResult {
    if !state.db.is_available()
        && let Some(answer) = from_memory(state, target, tag).await
    {
        return Ok(answer);
    }
    match pull_with_database(state, target, tag, head).await {
        Err(error @ ApiError::DatabaseUnavailable(_)) => from_memory(state, target, tag).await.ok_or(error),
        result => result,
    }
}

/// The manifest that the tag named when the database was last available.
async fn from_memory(state: &AppState, target: &Target, tag: &Tag) -> Option<(ManifestAnswer, Outcome)> {
    let row = state.caches.tags.get_outdated(&KeyRef(&target.key, tag)).await?;
    let manifest = state.caches.manifests.get(&row.manifest).await?;
    Some((ManifestAnswer::Manifest(manifest), Outcome::WithoutDatabase))
}

async fn pull_with_database(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    tag: &Tag,
    head: bool,
) -> ManifestResult {
    let local = LocalTag::find(state, target, tag).await?;
    let mut check_is_slow = false;
    let refusal = match local.row {
        Some(_) => None,
        None => state.caches.refused.get(&negative_key(target, tag)).await,
    };
    let named = if head { named(state, target, tag).await } else { None };
    // At most one check: the second round has its result or its timeout.
    loop {
        let facts = TagRequestFacts {
            local: local.facts(target, tag, Millis::now()),
            named: named.clone(),
            known_refusal: refusal.is_some(),
            check_is_slow,
        };
        let wait = match decide::tag_request(&facts) {
            TagRequestDecision::ServeFresh => {
                return local.serve(state, Outcome::Hit { ttl: local.ttl(target, tag) }).await;
            }
            TagRequestDecision::AnswerHeaders(headers) => {
                return Ok((ManifestAnswer::Headers(headers), Outcome::Hit { ttl: None }));
            }
            TagRequestDecision::ServeStale(failure) => {
                return local.serve(state, local.stale(target, failure)).await;
            }
            TagRequestDecision::RefuseKnown => {
                let refusal = refusal.unwrap_or(UpstreamFailure::NotFound.into());
                return Err(ApiError::known(Resource::Manifest, refusal));
            }
            TagRequestDecision::Refuse(class) => {
                return Err(ApiError::upstream(Resource::Manifest, class.into()));
            }
            TagRequestDecision::CheckWithinWait => state.config.settings.revalidate_wait,
            TagRequestDecision::Check => Duration::MAX,
        };
        match tokio::time::timeout(wait, check_once(state, target, tag, head, &local)).await {
            Ok(result) => return result,
            Err(_) => check_is_slow = true,
        }
    }
}

/// Starts or joins the check of a tag, and waits for what the request needs of it.
async fn check_once(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    tag: &Tag,
    head: bool,
    local: &LocalTag,
) -> ManifestResult {
    // A second round only after a check that another request began for `HEAD`.
    loop {
        let key = (target.key.clone(), tag.clone());
        let (flight, joined) = state.flights.tags.join(key, |publisher| {
            let (state, target, tag) = (Arc::clone(state), Arc::clone(target), tag.clone());
            run(state, target, tag, local.clone(), head, publisher)
        });
        let progress = flight.value(|progress| head || matches!(progress, TagCheckProgress::Done(_))).await;
        match progress.ok_or(ApiError::Panicked)? {
            TagCheckProgress::Headers(headers) => {
                return Ok((ManifestAnswer::Headers(headers), Outcome::Forwarded));
            }
            // The check was for a `HEAD` request and has fetched nothing.
            TagCheckProgress::Done(Ok((ManifestAnswer::Headers(_), _))) if !head => {}
            TagCheckProgress::Done(Ok((answer, Outcome::Miss))) if joined => {
                return Ok((answer, Outcome::Collapsed));
            }
            TagCheckProgress::Done(result) => return result,
        }
    }
}

/// Checks a tag and publishes the answer. What need not precede the answer follows it.
async fn run(
    state: Arc<AppState>,
    target: Arc<Target>,
    tag: Tag,
    local: LocalTag,
    headers_only: bool,
    publisher: TagPublisher,
) {
    let result = check(&state, &target, &tag, local, headers_only, &publisher).await;
    publisher.finish(TagCheckProgress::Done(result.clone()));
    if let Ok((ManifestAnswer::Manifest(manifest), Outcome::Miss | Outcome::KnownContent)) = result {
        complete::queue(&state, &target, &manifest).await;
    }
}

/// Checks a tag: decides, acts, and decides again until there is an answer.
async fn check(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    tag: &Tag,
    local: LocalTag,
    headers_only: bool,
    publisher: &TagPublisher,
) -> ManifestResult {
    // A check that ended after `local` was read has left its result in the cache.
    let mut local = LocalTag::cached(state, target, tag).await.unwrap_or(local);
    let mut observed = TagCheck { tag: tag.clone(), began: local.now };
    let mut facts = TagCheckFacts {
        local: local.facts(target, tag, observed.began),
        upstream: Upstream::NotAsked,
        recorded: false,
        headers_only,
        serve_deleted: target.upstream.policy.when_deleted_upstream == WhenDeleted::Serve,
    };
    let mut recorded: Option<(Arc<StoredManifest>, Outcome)> = None;
    let mut failure = None;
    // Each fact is obtained once: one `HEAD`, one fetch, one record.
    loop {
        match decide::tag_check(&facts) {
            // HEAD
            TagCheckDecision::Head => {
                observed.began = Millis::now();
                match head_upstream(state, target, tag).await {
                    Ok(named) => facts.upstream = Upstream::Has(named),
                    Err(error) => {
                        let failed = error.into_failure()?;
                        facts.upstream = Upstream::Failed(failed.class);
                        failure = Some(failed);
                    }
                }
            }
            TagCheckDecision::AnswerHeaders(headers) => {
                state.caches.note_naming(&target.key, &observed, &headers).await;
                return Ok((ManifestAnswer::Headers(headers), Outcome::Forwarded));
            }
            // Fetch
            TagCheckDecision::Fetch(digest) => {
                if let Upstream::Has(UpstreamTag::Digest { headers: Some(headers), .. }) = &facts.upstream {
                    publisher.update(TagCheckProgress::Headers(headers.clone()));
                }
                match fetch(state, target, &digest, &observed).await {
                    Ok(fetched) => {
                        local = local.updated(fetched.tag);
                        recorded = Some((fetched.manifest, Outcome::Miss));
                    }
                    Err(error) => {
                        let failed = error.into_failure()?;
                        facts.upstream = match decide::is_of_digest(failed.class) {
                            true => Upstream::Has(UpstreamTag::NoUsableDigest),
                            false => Upstream::Failed(failed.class),
                        };
                        failure = Some(failed);
                    }
                }
            }
            TagCheckDecision::FetchByTag => {
                observed.began = Millis::now();
                let reference = Reference::Tag(tag.clone());
                match manifest::fetch(state, target, &reference, Some(&observed), Priority::Client).await {
                    Ok(fetched) => {
                        local = local.updated(fetched.tag);
                        recorded = Some((fetched.manifest, Outcome::Miss));
                    }
                    Err(error) => {
                        let failed = error.into_failure()?;
                        facts.upstream = Upstream::Failed(failed.class);
                        failure = Some(failed);
                    }
                }
            }
            // Record
            TagCheckDecision::LinkExisting(digest) => {
                match record::link_existing(state, target, &digest, Some(&observed)).await? {
                    Some(linked) => {
                        local = local.updated(linked.tag);
                        recorded = Some((linked.manifest, Outcome::KnownContent));
                    }
                    None => {
                        let absent = UpstreamTag::Digest { digest, bytes_present: false, headers: None };
                        facts.upstream = Upstream::Has(absent);
                    }
                }
            }
            TagCheckDecision::RecordCheck(digest) => {
                let row = record::tag_check(state, target, &observed, &digest).await?;
                let confirmed = row.as_ref().is_some_and(|row| row.manifest == digest);
                local = local.updated(row);
                if confirmed {
                    let manifest =
                        record::manifest(state, &digest).await?.ok_or(ApiError::MissingManifest)?;
                    recorded = Some((manifest, Outcome::Revalidated));
                }
            }
            // Answer
            TagCheckDecision::Serve(digest) => {
                return match recorded {
                    Some((manifest, outcome)) if manifest.digest == digest => {
                        Ok((ManifestAnswer::Manifest(manifest), outcome))
                    }
                    Some((_, outcome)) => local.serve(state, outcome).await,
                    None => local.serve(state, Outcome::Hit { ttl: local.ttl(target, tag) }).await,
                };
            }
            TagCheckDecision::ServeStale(_, failure) => {
                let (repository, code) = (&target.repository, failure_code(failure));
                tracing::warn!(%repository, %tag, code, "serving a stale tag");
                return local.serve(state, local.stale(target, failure)).await;
            }
            TagCheckDecision::Refuse(class) => {
                let failure = Failure::of(class, failure);
                state.caches.note_refusal(negative_key(target, tag), &failure).await;
                return Err(ApiError::upstream(Resource::Manifest, failure));
            }
        }
        facts.local = local.facts(target, tag, observed.began);
        facts.recorded = recorded.is_some();
    }
}

/// Requests from the upstream which manifest a tag names, and looks up whether its bytes are present.
async fn head_upstream(state: &AppState, target: &Target, tag: &Tag) -> Result<UpstreamTag, ApiError> {
    let reference = Reference::Tag(tag.clone());
    match target.upstream.client.head_manifest(&target.upstream_name, &reference, Priority::Client).await {
        Ok(ManifestHead { digest: Some(digest), media_type, size }) => {
            let bytes_present =
                state.caches.manifests.contains_key(&digest) || manifests::stored(&state.db, &digest).await?;
            let headers = plausible_headers(&digest, media_type, size);
            Ok(UpstreamTag::Digest { digest, bytes_present, headers })
        }
        Ok(ManifestHead { digest: None, .. }) => Ok(UpstreamTag::NoUsableDigest),
        Err(error) => {
            let (upstream, repository) = (target.upstream.client.name(), &target.upstream_name);
            tracing::debug!(upstream, %repository, %tag, %error, "failed to check a tag");
            Err(ApiError::upstream(Resource::Manifest, Failure::from(&error)))
        }
    }
}

/// Gets the manifest that the tag names and records both. Shares the request in flight for the digest.
async fn fetch(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
    observed: &TagCheck,
) -> Result<Recorded, ApiError> {
    match state.flights.manifests.begin((target.key.clone(), digest.clone())) {
        Begin::Started(publisher) => {
            let reference = Reference::Digest(digest.clone());
            let fetched = manifest::fetch(state, target, &reference, Some(observed), Priority::Client).await;
            let result = fetched.as_ref().map(|fetched| (Arc::clone(&fetched.manifest), Outcome::Miss));
            publisher.finish(result.map_err(Clone::clone));
            fetched
        }
        Begin::Joined(flight) => {
            flight.result().await.ok_or(ApiError::Panicked)??;
            let linked = record::link_existing(state, target, digest, Some(observed)).await?;
            linked.ok_or(ApiError::MissingManifest)
        }
    }
}

/// The headers for an answer to `HEAD`. Without a manifest type and a length, the manifest itself has to tell them.
fn plausible_headers(
    digest: &Digest,
    media_type: Option<MediaType>,
    size: Option<u64>,
) -> Option<ManifestHeaders> {
    let media_type = media_type.filter(|media_type| MANIFEST_TYPES.contains(&media_type.as_str()))?;
    let size = size.filter(|size| *size > 0)?;
    Some(ManifestHeaders { digest: digest.clone(), media_type, size })
}

/// The manifest that the upstream named within the TTL for another `HEAD`, if it is not present.
async fn named(state: &AppState, target: &Target, tag: &Tag) -> Option<ManifestHeaders> {
    let (at, headers) = state.caches.named.get(&KeyRef(&target.key, tag)).await?;
    (at.elapsed() < target.upstream.policy.tag_ttl).then_some(headers)
}

fn negative_key(target: &Target, tag: &Tag) -> NegativeKey {
    NegativeKey::Manifest(target.key.clone(), Reference::Tag(tag.clone()))
}
