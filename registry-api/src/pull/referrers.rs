//! The referrers of a manifest: cache, upstream, or the database when the upstream does not deliver them.

use std::{sync::Arc, time::Instant};

use http_server::Resource;
use oci_types::{Digest, Referrer};
use shared_models::db::manifests;
use upstream_client::Priority;

use super::decide::{self, KnownList, ListingDecision, ListingFacts};
use crate::{
    cache_status::Outcome,
    caches::{KeyRef, NegativeKey},
    error::{ApiError, Failure},
    known_referrers::KnownReferrers,
    resolve::Target,
    state::AppState,
};

/// The maximum number of referrers that are listed from the database.
const MAX_LOCAL: i64 = 1000;

/// Lists the referrers of a manifest.
pub(crate) async fn list(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    subject: &Digest,
) -> Result<(Arc<KnownReferrers>, Outcome), ApiError> {
    let ttl = target.upstream.policy.tag_ttl;
    let known = state.caches.referrers.get(&KeyRef(&target.key, subject)).await;
    let mut failure = state.caches.refused.get(&negative_key(target, subject)).await;
    let mut facts = ListingFacts {
        known: match &known {
            None => KnownList::None,
            Some(known) if known.began().elapsed() < ttl => KnownList::Fresh,
            Some(_) => KnownList::Outdated,
        },
        offline: target.upstream.client.is_offline(),
        refusal: failure.as_ref().map(|failure| failure.class),
        failure: None,
    };
    // At most one fetch.
    loop {
        match (decide::listing(facts), &known) {
            (ListingDecision::ServeKnown, Some(known)) => {
                let ttl = ttl.saturating_sub(known.began().elapsed());
                return Ok((Arc::clone(known), Outcome::Hit { ttl: Some(ttl) }));
            }
            (ListingDecision::ServeOutdated(class), Some(known)) => {
                let since = known.began().elapsed().saturating_sub(ttl);
                return Ok((Arc::clone(known), Outcome::Stale { failure: class, since }));
            }
            (ListingDecision::ListLocal(class), _) => {
                return list_local(state, target, subject, Failure::of(class, failure)).await;
            }
            (ListingDecision::Fetch | ListingDecision::ServeKnown | ListingDecision::ServeOutdated(_), _) => {
                match fetch_once(state, target, subject).await {
                    Ok(fetched) => return Ok((fetched, Outcome::Miss)),
                    Err(error) => {
                        let failed = error.into_failure()?;
                        facts.failure = Some(failed.class);
                        failure = Some(failed);
                    }
                }
            }
        }
    }
}

/// Starts or joins the fetch of the list.
async fn fetch_once(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    subject: &Digest,
) -> Result<Arc<KnownReferrers>, ApiError> {
    let key = (target.key.clone(), subject.clone());
    let (flight, _) = state.flights.referrers.join(key, |publisher| {
        let (state, target, subject) = (Arc::clone(state), Arc::clone(target), subject.clone());
        async move { publisher.finish(fetch(&state, &target, &subject).await) }
    });
    flight.result().await.ok_or(ApiError::Panicked)?
}

async fn fetch(state: &AppState, target: &Target, subject: &Digest) -> Result<Arc<KnownReferrers>, ApiError> {
    let began = Instant::now();
    match target.upstream.client.list_referrers(&target.upstream_name, subject, Priority::Client).await {
        Ok(referrers) => {
            let known = Arc::new(KnownReferrers::new(referrers, began));
            let key = (target.key.clone(), subject.clone());
            state.caches.referrers.insert(key, Arc::clone(&known)).await;
            Ok(known)
        }
        Err(error) => {
            let failure = Failure::from(&error);
            state.caches.note_refusal(negative_key(target, subject), &failure).await;
            Err(ApiError::upstream(Resource::Repository, failure))
        }
    }
}

/// The referrers in the database; without any, the failure of the upstream.
async fn list_local(
    state: &AppState,
    target: &Target,
    subject: &Digest,
    failure: Failure,
) -> Result<(Arc<KnownReferrers>, Outcome), ApiError> {
    let stored = manifests::referrers(&state.db, &target.key, subject, MAX_LOCAL).await?;
    if stored.is_empty() {
        return Err(ApiError::upstream(Resource::Repository, failure));
    }
    let describe =
        |one: &manifests::StoredManifest| Referrer::of_manifest(&one.digest, &one.media_type, &one.body);
    let referrers = stored.iter().filter_map(describe).collect();
    let outcome = Outcome::LocalList { failure: failure.class };
    Ok((Arc::new(KnownReferrers::new(referrers, Instant::now())), outcome))
}

fn negative_key(target: &Target, subject: &Digest) -> NegativeKey {
    NegativeKey::Referrers(target.key.clone(), subject.clone())
}
