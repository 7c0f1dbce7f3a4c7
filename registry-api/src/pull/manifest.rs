//! A manifest by digest: gather facts, decide, act.

use std::sync::Arc;

use oci_types::{Digest, MediaType, Millis, Reference, RepositoryName};
use shared_models::db::{
    manifests::{self, StoredManifest},
    platforms,
    record::TagCheck,
};
use upstream_client::Priority;

use super::{
    decide::{self, DigestDecision, DigestFacts, Failure, Upstream},
    failure::failure,
    fetch::{self, FetchError},
};
use crate::{
    cache_status::Outcome,
    caches::{In, Missing},
    error::{ApiError, Asked},
    record,
    resolve::Target,
    single_flight::Flights,
    state::AppState,
};

/// A manifest that upstream gave or confirmed, and how it came about.
type Obtained = Result<(Arc<StoredManifest>, Outcome), FetchError>;

/// The fetches and confirmations of manifests that run now, by repository and digest.
pub(crate) type ManifestFlights = Flights<(RepositoryName, Digest), (), Obtained>;

/// What the headers of a manifest's answer say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) digest: Digest,
    pub(crate) media_type: MediaType,
    /// In bytes.
    pub(crate) size: u64,
}

/// What a request for a manifest is answered with.
#[derive(Clone)]
pub(crate) enum Answer {
    /// The manifest.
    Manifest(Arc<StoredManifest>),
    /// For `HEAD`: what upstream says of a manifest whose bytes are still on their way.
    Described(Described),
}

/// An answer, and how it came about.
pub(crate) type Pulled = Result<(Answer, Outcome), ApiError>;

pub(crate) fn refused(refusal: Failure) -> ApiError {
    ApiError::Refused { asked: Asked::Manifest, refusal, negative: false }
}

/// Answers a manifest by its digest.
pub(crate) async fn pull(state: &Arc<AppState>, target: &Arc<Target>, digest: &Digest) -> Pulled {
    let missing = || Missing::Reference(target.repository.clone(), digest.to_string());
    let mut upstream = Upstream::NotAsked;
    loop {
        let stored = state.manifest(digest).await?;
        let facts =
            DigestFacts { linked: is_linked(state, target, digest).await?, bytes_here: stored.is_some() };
        match (decide::digest(facts, &upstream), stored) {
            (DigestDecision::Serve, Some(stored)) => {
                return Ok((Answer::Manifest(stored), Outcome::Hit { ttl: None }));
            }
            (DigestDecision::Refuse(refusal), _) => {
                if refusal == Failure::NotFound {
                    state.memory.missing.insert(missing(), ()).await;
                }
                return Err(refused(refusal));
            }
            _ if state.memory.missing.contains_key(&missing()) => {
                return Err(ApiError::Refused {
                    asked: Asked::Manifest,
                    refusal: Failure::NotFound,
                    negative: true,
                });
            }
            _ => match fetch_once(state, target, digest, None, Priority::Client).await {
                Ok((stored, outcome)) => {
                    note_platform(state, target, digest).await;
                    return Ok((Answer::Manifest(stored), outcome));
                }
                Err(FetchError::Upstream(failure)) => upstream = Upstream::Failed(failure),
                Err(FetchError::Here(error)) => return Err(error),
            },
        }
    }
}

/// Gets a manifest by digest, or joins whoever does. A tag is pointed at it either way.
pub(crate) async fn fetch_once(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
    tag: Option<&TagCheck>,
    priority: Priority,
) -> Obtained {
    let key = (target.repository.clone(), digest.clone());
    let (flight, joined) = state.manifest_flights.join(key, |_| {
        let (state, target) = (Arc::clone(state), Arc::clone(target));
        let (digest, tag) = (digest.clone(), tag.cloned());
        async move { obtain(&state, &target, &digest, tag.as_ref(), priority).await }
    });
    let (stored, outcome) = flight.result().await.unwrap_or(Err(FetchError::Here(ApiError::Internal)))?;
    if joined && tag.is_some() {
        record::adopted(state, target, digest, tag).await.map_err(FetchError::Here)?;
    }
    Ok((stored, if joined { Outcome::Collapsed } else { outcome }))
}

/// Links what is here and confirmed, and fetches the rest. It looks again whether the manifest is here: another flight may
/// have landed with it since the caller looked.
async fn obtain(
    state: &AppState,
    target: &Target,
    digest: &Digest,
    tag: Option<&TagCheck>,
    priority: Priority,
) -> Obtained {
    if let Some(stored) = state.manifest(digest).await.map_err(FetchError::Here)? {
        let linked = is_linked(state, target, digest).await.map_err(FetchError::Here)?;
        if linked && tag.is_none() {
            return Ok((stored, Outcome::Collapsed));
        }
        // Upstream has just told that a tag of this repository names it: that is its word.
        let confirmed = linked || tag.is_some() || confirm(target, digest, priority).await?;
        if confirmed && record::adopted(state, target, digest, tag).await.map_err(FetchError::Here)? {
            return Ok((stored, Outcome::Adopted));
        }
    }
    let reference = Reference::Digest(digest.clone());
    let stored = fetch::manifest(state, target, &reference, tag, priority).await?;
    Ok((stored, Outcome::Miss))
}

async fn is_linked(state: &AppState, target: &Target, digest: &Digest) -> Result<bool, ApiError> {
    if state.memory.links.contains_key(&In(&target.repository, digest)) {
        return Ok(true);
    }
    let linked = manifests::linked(&state.db, &target.repository, digest).await?;
    if linked {
        state.memory.links.insert((target.repository.clone(), digest.clone()), ()).await;
    }
    Ok(linked)
}

/// Its bytes are here by way of another repository: this one may serve them when its own upstream has them. False when
/// only a fetch can tell: a `HEAD` that names no digest, or one that was refused as a method, has confirmed nothing.
async fn confirm(target: &Target, digest: &Digest, priority: Priority) -> Result<bool, FetchError> {
    let reference = Reference::Digest(digest.clone());
    match target.upstream.client.head_manifest(&target.upstream_name, &reference, priority).await {
        Ok(head) => Ok(head.digest.is_some()),
        Err(error) => Err(FetchError::Upstream(failure(&error))),
    }
}

/// A client asked for one platform of an index: the namespace's default for what is completed in the background.
async fn note_platform(state: &AppState, target: &Target, digest: &Digest) {
    let noted = async {
        let Some(platform) = manifests::platform_of(&state.db, digest).await? else { return Ok(()) };
        platforms::note(&state.db, &target.namespace.prefix, &platform, Millis::now()).await
    };
    if let Err(error) = noted.await {
        tracing::warn!(%digest, "the platform that a client asked for could not be noted: {error}");
    }
}
