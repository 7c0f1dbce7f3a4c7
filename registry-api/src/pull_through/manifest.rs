//! A manifest by digest: gather facts, decide, act.

use std::sync::Arc;

use shared_models::{
    Digest, MediaType, Millis, Reference, RepositoryName, Tag,
    db::{
        manifests::{self, StoredManifest},
        platforms,
    },
};
use upstream_client::Priority;

use super::{
    cache_status::Outcome,
    decide::{self, DigestDecision, DigestFacts, Failure, Upstream},
    failure::failure,
    fetch::{self, FetchError},
    flights::Flights,
    memory::Missing,
    record,
    resolve::Target,
};
use crate::{
    error::{ApiError, Asked},
    registry::Registry,
};

/// The fetches of manifests that run now, by repository and digest.
pub(crate) type ManifestFlights =
    Flights<(RepositoryName, Digest), (), Result<Arc<StoredManifest>, FetchError>>;

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
pub(crate) async fn pull(registry: &Arc<Registry>, target: &Arc<Target>, digest: &Digest) -> Pulled {
    let missing = Missing::Reference(target.repository.clone(), digest.to_string());
    let mut upstream = Upstream::NotAsked;
    loop {
        let stored = registry.manifest(digest).await?;
        let facts =
            DigestFacts { linked: is_linked(registry, target, digest).await?, bytes_here: stored.is_some() };
        match (decide::digest(facts, &upstream), stored) {
            (DigestDecision::Serve, Some(stored)) => {
                let outcome = if upstream == Upstream::NotAsked {
                    Outcome::Hit { ttl: None }
                } else {
                    Outcome::Adopted
                };
                return Ok((Answer::Manifest(stored), outcome));
            }
            (DigestDecision::Refuse(refusal), _) => {
                if refusal == Failure::NotFound {
                    registry.memory.missing.insert(missing, ()).await;
                }
                return Err(refused(refusal));
            }
            _ if registry.memory.missing.contains_key(&missing) => {
                return Err(ApiError::Refused {
                    asked: Asked::Manifest,
                    refusal: Failure::NotFound,
                    negative: true,
                });
            }
            (DigestDecision::AskToAdopt, _) => upstream = ask_to_adopt(registry, target, digest).await?,
            (DigestDecision::Fetch, _) | (DigestDecision::Serve, None) => {
                match fetch_once(registry, target, digest, None, Priority::Client).await {
                    Ok((stored, joined)) => {
                        let outcome = if joined { Outcome::Collapsed } else { Outcome::Miss };
                        note_platform(registry, target, digest).await;
                        return Ok((Answer::Manifest(stored), outcome));
                    }
                    Err(FetchError::Upstream(failure)) => upstream = Upstream::Failed(failure),
                    Err(FetchError::Here(error)) => return Err(error),
                }
            }
        }
    }
}

/// Fetches a manifest by digest, or joins whoever fetches it. The second value says whether it was joined. A tag is
/// pointed at it either way.
pub(crate) async fn fetch_once(
    registry: &Arc<Registry>,
    target: &Arc<Target>,
    digest: &Digest,
    tag: Option<&Tag>,
    priority: Priority,
) -> Result<(Arc<StoredManifest>, bool), FetchError> {
    let key = (target.repository.clone(), digest.clone());
    let (flight, joined) = registry.manifest_flights.join(key, |_| {
        let (registry, target) = (Arc::clone(registry), Arc::clone(target));
        let (reference, tag) = (Reference::Digest(digest.clone()), tag.cloned());
        async move { fetch::manifest(&registry, &target, &reference, tag.as_ref(), priority).await }
    });
    let stored = flight.result().await.unwrap_or(Err(FetchError::Here(ApiError::Internal)))?;
    if joined && tag.is_some() {
        record::adopted(registry, target, digest, tag).await.map_err(FetchError::Here)?;
    }
    Ok((stored, joined))
}

async fn is_linked(registry: &Registry, target: &Target, digest: &Digest) -> Result<bool, ApiError> {
    let key = (target.repository.clone(), digest.clone());
    if registry.memory.links.contains_key(&key) {
        return Ok(true);
    }
    let linked = manifests::linked(&registry.db, &target.repository, digest).await?;
    if linked {
        registry.memory.links.insert(key, ()).await;
    }
    Ok(linked)
}

/// Its bytes are here by way of another repository: this one may serve them when its own upstream has them.
async fn ask_to_adopt(
    registry: &Arc<Registry>,
    target: &Arc<Target>,
    digest: &Digest,
) -> Result<Upstream<()>, ApiError> {
    let reference = Reference::Digest(digest.clone());
    match target.upstream.client.head_manifest(&target.upstream_name, &reference, Priority::Client).await {
        Ok(_) => {
            record::adopted(registry, target, digest, None).await?;
            Ok(Upstream::Has(()))
        }
        Err(error) => Ok(Upstream::Failed(failure(&error))),
    }
}

/// A client asked for one platform of an index: the namespace's default for what is completed in the background.
async fn note_platform(registry: &Registry, target: &Target, digest: &Digest) {
    let noted = async {
        let Some(platform) = manifests::platform_of(&registry.db, digest).await? else { return Ok(()) };
        platforms::note(&registry.db, &target.namespace.prefix, &platform, Millis::now()).await
    };
    if let Err(error) = noted.await {
        tracing::warn!(%digest, "the platform that a client asked for could not be noted: {error}");
    }
}
