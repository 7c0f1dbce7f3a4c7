//! A manifest by digest: local copy, `HEAD`, fetch, record, answer.

use std::sync::Arc;

use http_server::Resource;
use oci_types::{Digest, Manifest, Millis, Reference, UpstreamFailure};
use shared_models::db::{
    links::{self, Proof},
    manifests::{self, NewManifest, StoredManifest},
    platforms,
    record::TagCheck,
    repositories::RepositoryKey,
};
use upstream_client::{FetchedManifest, Priority, UpstreamError};

use super::{
    complete,
    decide::{self, DigestFacts, DigestHeader, DigestPullDecision, DigestRequestDecision, Upstream},
};
use crate::{
    answer::DigestResult,
    cache_status::Outcome,
    caches::{KeyRef, NegativeKey},
    error::{ApiError, Failure},
    record::{self, Recorded},
    resolve::Target,
    single_flight::Publisher,
    state::AppState,
};

/// Answers a request for a digest.
pub(crate) async fn pull(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
    priority: Priority,
) -> DigestResult {
    if !state.db.is_available()
        && let Some(manifest) = from_memory(state, target, digest).await
    {
        return Ok(manifest);
    }
    match pull_with_database(state, target, digest, priority).await {
        Err(error @ ApiError::DatabaseUnavailable(_)) => {
            from_memory(state, target, digest).await.ok_or(error)
        }
        result => result,
    }
}

/// A manifest that the repository could serve when the database was last available.
async fn from_memory(
    state: &AppState,
    target: &Target,
    digest: &Digest,
) -> Option<(Arc<StoredManifest>, Outcome)> {
    let key = KeyRef(&target.key, digest);
    state.caches.manifest_links.get_outdated(&key).await?;
    Some((state.caches.manifests.get(digest).await?, Outcome::WithoutDatabase))
}

async fn pull_with_database(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
    priority: Priority,
) -> DigestResult {
    let local = LocalManifest::find(state, target, digest).await?;
    let refusal = match local.is_servable() {
        true => None,
        false => state.caches.refused.get(&negative_key(target, digest)).await,
    };
    match decide::digest_request(&local.facts(), refusal.is_some()) {
        DigestRequestDecision::Serve => {
            Ok((local.manifest.ok_or(ApiError::MissingManifest)?, Outcome::Hit { ttl: None }))
        }
        DigestRequestDecision::RefuseKnown => {
            let refusal = refusal.unwrap_or(UpstreamFailure::NotFound.into());
            Err(ApiError::known(Resource::Manifest, refusal))
        }
        DigestRequestDecision::Pull => pull_once(state, target, digest, local, priority).await,
    }
}

/// Starts or joins the pull of a digest.
async fn pull_once(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    digest: &Digest,
    local: LocalManifest,
    priority: Priority,
) -> DigestResult {
    let key = (target.key.clone(), digest.clone());
    let (flight, joined) = state.flights.manifests.join(key, |publisher| {
        run(Arc::clone(state), Arc::clone(target), digest.clone(), local, priority, publisher)
    });
    let (manifest, outcome) = flight.result().await.ok_or(ApiError::Panicked)??;
    Ok((manifest, if joined { Outcome::Collapsed } else { outcome }))
}

/// Pulls a digest and publishes the answer. What need not precede the answer follows it.
async fn run(
    state: Arc<AppState>,
    target: Arc<Target>,
    digest: Digest,
    local: LocalManifest,
    priority: Priority,
    publisher: Publisher<(RepositoryKey, Digest), DigestResult>,
) {
    let result = confirm_or_fetch(&state, &target, &digest, local, priority).await;
    publisher.finish(result.clone());
    // A job that pulls a manifest completes the image itself.
    if priority == Priority::Client
        && let Ok((manifest, Outcome::Miss | Outcome::KnownContent)) = result
    {
        touch_platform(&state, &target, &digest).await;
        complete::queue(&state, &target, &manifest).await;
    }
}

/// Pulls a digest: decides, acts, and decides again until there is an answer.
async fn confirm_or_fetch(
    state: &AppState,
    target: &Target,
    digest: &Digest,
    local: LocalManifest,
    priority: Priority,
) -> DigestResult {
    // A pull that ended after `local` was read has left its result in the caches.
    let mut local = local.or_cached(state, target, digest).await;
    let (mut upstream, mut failure) = (Upstream::NotAsked, None);
    // The tag of a `HEAD` that named the manifest: docker and containerd request it by digest next.
    let naming = state.caches.namings.get(&KeyRef(&target.key, digest)).await;
    // Each fact is obtained once: one `HEAD`, one link, one fetch.
    loop {
        match decide::digest_pull(&local.facts(), &upstream) {
            DigestPullDecision::Head => match head_upstream(target, digest, priority).await {
                Ok(header) => upstream = Upstream::Has(header),
                Err(error) => {
                    let failed = Failure::from(&error);
                    upstream = Upstream::Failed(failed.class);
                    failure = Some(failed);
                }
            },
            DigestPullDecision::Fetch => {
                match fetch_named(state, target, digest, naming.as_ref(), priority).await {
                    Ok(fetched) => return Ok((fetched.manifest, Outcome::Miss)),
                    Err(error) => {
                        let failed = error.into_failure()?;
                        upstream = Upstream::Failed(failed.class);
                        failure = Some(failed);
                    }
                }
            }
            DigestPullDecision::LinkExisting => {
                match record::link_existing(state, target, digest, naming.as_ref()).await? {
                    Some(linked) => return Ok((linked.manifest, Outcome::KnownContent)),
                    None => local.manifest = None,
                }
            }
            DigestPullDecision::Serve => {
                return Ok((local.manifest.ok_or(ApiError::MissingManifest)?, Outcome::Collapsed));
            }
            DigestPullDecision::Refuse(class) => {
                let failure = Failure::of(class, failure);
                state.caches.note_refusal(negative_key(target, digest), &failure).await;
                return Err(ApiError::upstream(Resource::Manifest, failure));
            }
        }
    }
}

/// Requests from the upstream of this repository whether it has a manifest whose bytes another repository has stored.
async fn head_upstream(
    target: &Target,
    digest: &Digest,
    priority: Priority,
) -> Result<DigestHeader, UpstreamError> {
    let reference = Reference::Digest(digest.clone());
    let head = target.upstream.client.head_manifest(&target.upstream_name, &reference, priority).await?;
    Ok(if head.digest.is_some() { DigestHeader::Sent } else { DigestHeader::Missing })
}

/// Gets a manifest by its digest. If the upstream does not deliver it so, and a tag names it, gets it by the tag.
async fn fetch_named(
    state: &AppState,
    target: &Target,
    digest: &Digest,
    naming: Option<&TagCheck>,
    priority: Priority,
) -> Result<Recorded, ApiError> {
    let fetched = fetch(state, target, &Reference::Digest(digest.clone()), naming, priority).await;
    let (Err(ApiError::Upstream { failure, .. }), Some(naming)) = (&fetched, naming) else { return fetched };
    if !decide::is_of_digest(*failure) {
        return fetched;
    }
    let check = TagCheck { tag: naming.tag.clone(), began: Millis::now() };
    let reference = Reference::Tag(naming.tag.clone());
    match fetch(state, target, &reference, Some(&check), priority).await {
        Ok(by_tag) if by_tag.manifest.digest == *digest => Ok(by_tag),
        _ => fetched,
    }
}

/// Gets a manifest from the upstream, verifies it, and records it, with `tag` where there is one.
///
/// # Errors
/// [`ApiError::Upstream`] when the upstream does not deliver a valid manifest.
pub(crate) async fn fetch(
    state: &AppState,
    target: &Target,
    reference: &Reference,
    tag: Option<&TagCheck>,
    priority: Priority,
) -> Result<Recorded, ApiError> {
    let client = &target.upstream.client;
    let failed = |error: &dyn std::error::Error, failure: Failure| {
        let (upstream, repository) = (client.name(), &target.repository);
        tracing::warn!(upstream, %repository, %reference, %error, "failed to fetch a manifest");
        ApiError::upstream(Resource::Manifest, failure)
    };
    let fetched = client
        .get_manifest(&target.upstream_name, reference, priority)
        .await
        .map_err(|error| failed(&error, Failure::from(&error)))?;
    let FetchedManifest { digest, media_type, body, memory: _memory } = fetched;
    let parsed =
        Manifest::parse(&body, media_type.as_ref()).map_err(|error| failed(&error, Failure::from(&error)))?;
    let manifest = NewManifest { digest, parsed, body };
    record::fetched(state, target, manifest, tag).await
}

/// Records that clients of the namespace request the platform of this manifest: the default for completing other images.
async fn touch_platform(state: &AppState, target: &Target, digest: &Digest) {
    let recorded = async {
        let Some(platform) = manifests::platform_of(&state.db, digest).await? else { return Ok(()) };
        platforms::touch(&state.db, &target.namespace.prefix, &platform, Millis::now()).await
    };
    if let Err(error) = recorded.await {
        tracing::warn!(%digest, %error, "failed to record the platform of a manifest");
    }
}

fn negative_key(target: &Target, digest: &Digest) -> NegativeKey {
    NegativeKey::Manifest(target.key.clone(), Reference::Digest(digest.clone()))
}

/// A manifest as it is in the caches and the database.
struct LocalManifest {
    manifest: Option<Arc<StoredManifest>>,
    link: Option<Proof>,
}

impl LocalManifest {
    async fn find(state: &AppState, target: &Target, digest: &Digest) -> Result<Self, ApiError> {
        let unknown = Self { manifest: None, link: None };
        let mut local = unknown.or_cached(state, target, digest).await;
        if local.manifest.is_none() || local.link.is_none() {
            let with_bytes = local.manifest.is_none();
            let found = links::manifest(&state.db, &target.key, digest, with_bytes).await?;
            local.link = found.proof;
            if let Some(stored) = found.stored {
                local.manifest = Some(record::cache_manifest(state, stored).await);
            }
            if local.is_servable() {
                record::cache_link(state, target, digest).await;
            }
        }
        Ok(local)
    }

    async fn or_cached(mut self, state: &AppState, target: &Target, digest: &Digest) -> Self {
        if self.manifest.is_none() {
            self.manifest = state.caches.manifests.get(digest).await;
        }
        if state.caches.manifest_links.get(&KeyRef(&target.key, digest)).await.is_some() {
            self.link = Some(Proof::Confirmed);
        }
        self
    }

    fn is_servable(&self) -> bool {
        decide::digest_request(&self.facts(), false) == DigestRequestDecision::Serve
    }

    fn facts(&self) -> DigestFacts {
        DigestFacts { link: self.link, bytes_present: self.manifest.is_some() }
    }
}
