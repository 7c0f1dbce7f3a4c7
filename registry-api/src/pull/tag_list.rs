//! A page of the tags of a repository: cache, upstream, or the database when the upstream does not deliver it.

use std::{sync::Arc, time::Instant};

use futures::FutureExt;
use http_server::Resource;
use oci_types::{Tag, UpstreamFailure};
use shared_models::db::tags;
use upstream_client::{ListPermit, MAX_TAGS, Priority, UpstreamError};

use super::decide::{self, KnownList, ListingDecision, ListingFacts};
use crate::{
    answer::TagListResult,
    cache_status::Outcome,
    caches::NegativeKey,
    error::{ApiError, Failure},
    known_tags::KnownTags,
    listing::{Page, PageRequest, rows_for},
    resolve::Target,
    state::AppState,
};

/// The maximum number of pages that are fetched from the upstream for one request.
const MAX_FETCHES: usize = 500;

/// The maximum size in bytes of a list that a request keeps while it fetches a page, without a permit.
const MAX_SMALL_LIST: usize = 1024 * 1024;

/// Answers a request for a page of at most `n` tags.
pub(crate) async fn list(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    request: &PageRequest<Tag>,
    n: u32,
) -> TagListResult {
    let started = Instant::now();
    let ttl = target.upstream.policy.tag_ttl;
    // A list that was fetched for this request is fresh, whatever the TTL.
    let is_fresh = |known: &KnownTags| known.began() >= started || known.began().elapsed() < ttl;
    let mut known = state.caches.tag_lists.get(&target.key).await;
    let mut failure = state.caches.refused.get(&negative_key(target)).await;
    let mut outcome = None;
    // To keep a list that is not small while a page is fetched.
    let mut permit: Option<Arc<ListPermit>> = None;
    let mut facts = ListingFacts {
        known: KnownList::None,
        offline: target.upstream.client.is_offline(),
        refusal: failure.as_ref().map(|failure| failure.class),
        failure: None,
    };
    for _ in 0..MAX_FETCHES {
        let page = known.as_ref().and_then(|known| known.page(request, n));
        facts.known = match &known {
            Some(known) if page.is_some() && is_fresh(known) => KnownList::Fresh,
            Some(_) if page.is_some() => KnownList::Outdated,
            _ => KnownList::None,
        };
        match (decide::listing(facts), page, &known) {
            (ListingDecision::ServeKnown, Some(page), Some(known)) => {
                let ttl = ttl.saturating_sub(known.began().elapsed());
                return Ok((Arc::new(page), outcome.unwrap_or(Outcome::Hit { ttl: Some(ttl) })));
            }
            (ListingDecision::ServeOutdated(class), Some(page), Some(known)) => {
                let since = known.began().elapsed().saturating_sub(ttl);
                return Ok((Arc::new(page), Outcome::Stale { failure: class, since }));
            }
            (ListingDecision::ListLocal(class), ..) => {
                return list_local(state, target, request, n, Failure::of(class, failure)).await;
            }
            (
                ListingDecision::Fetch | ListingDecision::ServeKnown | ListingDecision::ServeOutdated(_),
                ..,
            ) => {
                if permit.is_none() && known.as_ref().is_some_and(|known| known.bytes() > MAX_SMALL_LIST) {
                    let client = &target.upstream.client;
                    let Some(admitted) = client.admit_list().now_or_never() else {
                        // A request that waits keeps no list.
                        drop(known.take());
                        match client.admit_list().await {
                            Ok(admitted) => permit = Some(Arc::new(admitted)),
                            Err(error) => {
                                let failed = Failure::from(&error);
                                facts.failure = Some(failed.class);
                                failure = Some(failed);
                            }
                        }
                        known = state.caches.tag_lists.get(&target.key).await;
                        continue;
                    };
                    permit = admitted.ok().map(Arc::new);
                }
                let beginning = known.clone().filter(|known| is_fresh(known));
                match fetch_once(state, target, beginning, permit.clone()).await {
                    Ok(fetched) => {
                        known = Some(fetched);
                        outcome = Some(Outcome::Miss);
                    }
                    Err(error) => {
                        let failed = error.into_failure()?;
                        facts.failure = Some(failed.class);
                        failure = Some(failed);
                    }
                }
            }
        }
    }
    Err(ApiError::upstream(Resource::Repository, too_long()))
}

/// Starts or joins the fetch of the page that follows `beginning`, or of the first one. Returns the list with it.
/// `permit` is that of the beginning.
async fn fetch_once(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    beginning: Option<Arc<KnownTags>>,
    permit: Option<Arc<ListPermit>>,
) -> Result<Arc<KnownTags>, ApiError> {
    let key = (target.key.clone(), beginning.as_ref().map_or(0, |known| known.len()));
    let (flight, _) = state.flights.tag_lists.join(key, |publisher| {
        let (state, target) = (Arc::clone(state), Arc::clone(target));
        async move {
            publisher.finish(fetch(&state, &target, beginning.as_deref()).await);
            drop(permit);
        }
    });
    flight.result().await.ok_or(ApiError::Panicked)?
}

async fn fetch(
    state: &AppState,
    target: &Target,
    beginning: Option<&KnownTags>,
) -> Result<Arc<KnownTags>, ApiError> {
    let began = Instant::now();
    let cursor = beginning.and_then(KnownTags::next);
    match target.upstream.client.list_tags(&target.upstream_name, cursor, Priority::Client).await {
        Ok(page) => {
            let known = match beginning {
                Some(beginning) => beginning.with(page),
                None => KnownTags::new(page, began),
            };
            if known.len() > MAX_TAGS {
                return Err(ApiError::upstream(Resource::Repository, too_long()));
            }
            let known = Arc::new(known);
            state.caches.tag_lists.insert(target.key.clone(), Arc::clone(&known)).await;
            Ok(known)
        }
        Err(error) => {
            let failure = match error {
                UpstreamError::TooLarge => too_long(),
                error => Failure::from(&error),
            };
            state.caches.note_refusal(negative_key(target), &failure).await;
            Err(ApiError::upstream(Resource::Repository, failure))
        }
    }
}

/// The tags in the database; without any, the failure of the upstream.
async fn list_local(
    state: &AppState,
    target: &Target,
    request: &PageRequest<Tag>,
    n: u32,
    failure: Failure,
) -> TagListResult {
    let rows = tags::list(&state.db, &target.key, request.last.as_ref(), rows_for(n)).await?;
    if rows.is_empty() && request.last.is_none() {
        return Err(ApiError::upstream(Resource::Repository, failure));
    }
    let outcome = Outcome::LocalList { failure: failure.class };
    Ok((Arc::new(Page::of_rows(rows, n)), outcome))
}

/// A list whose number of tags, of bytes in a page, or of pages is above the maximum.
fn too_long() -> Failure {
    let reason = format!("the list of the repository has more than {MAX_TAGS} tags, or is too long");
    Failure { class: UpstreamFailure::Unsupported, reason: Some(reason.into()) }
}

fn negative_key(target: &Target) -> NegativeKey {
    NegativeKey::TagList(target.key.clone())
}
