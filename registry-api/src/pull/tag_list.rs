//! A page of the tags of a repository: cache, upstream, or the database when the upstream does not deliver it.

use std::{sync::Arc, time::Instant};

use http_server::Resource;
use oci_types::{Tag, UpstreamFailure};
use shared_models::db::tags;
use upstream_client::Priority;

use super::decide::{self, TagListDecision, TagListFacts, Upstream};
use crate::{
    answer::TagListResult,
    caches::{NegativeKey, TagListKey},
    error::ApiError,
    listing::{Page, PageRequest, rows_for},
    resolve::Target,
    state::AppState,
};

/// Answers a request for a page.
pub(crate) async fn list(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    page: PageRequest<Tag>,
) -> TagListResult {
    let key = (target.key.clone(), page);
    let cached = state.caches.tag_lists.get(&key).await;
    let cached = cached.filter(|(fetched_at, _)| fetched_at.elapsed() < target.upstream.policy.tag_ttl);
    let facts = TagListFacts {
        cached: cached.is_some(),
        offline: target.upstream.client.is_offline(),
        known_missing: state.caches.missing.contains_key(&negative_key(target)),
    };
    let mut fetch = Upstream::NotAsked;
    // At most one fetch.
    loop {
        match (decide::tag_list(facts, &fetch), &cached) {
            (TagListDecision::ServeCached, Some((_, page))) => return Ok(Arc::clone(page)),
            (TagListDecision::ServeCached | TagListDecision::Fetch, _) => {
                match fetch_once(state, target, &key).await {
                    Err(ApiError::Upstream { failure, .. }) => fetch = Upstream::Failed(failure),
                    result => return result,
                }
            }
            (TagListDecision::ListLocal(failure), _) => {
                return list_local(state, target, &key.1, failure).await;
            }
        }
    }
}

/// Starts or joins the fetch of a page.
async fn fetch_once(state: &Arc<AppState>, target: &Arc<Target>, key: &TagListKey) -> TagListResult {
    let (flight, _) = state.flights.tag_lists.join(key.clone(), |publisher| {
        let (state, target, key) = (Arc::clone(state), Arc::clone(target), key.clone());
        async move { publisher.finish(fetch(&state, &target, key).await) }
    });
    flight.result().await.ok_or(ApiError::Panicked)?
}

async fn fetch(state: &AppState, target: &Target, key: TagListKey) -> TagListResult {
    let PageRequest { n, last } = &key.1;
    let last = last.as_ref().map(Tag::as_str);
    match target.upstream.client.list_tags(&target.upstream_name, *n, last, Priority::Client).await {
        Ok(list) => {
            // Some upstreams ignore `n`, and a request without it may have any number of tags.
            let n = n.unwrap_or(state.config.settings.max_page_size);
            let page = Arc::new(Page::truncated(list.tags, Some(n), list.next_last));
            state.caches.tag_lists.insert(key, (Instant::now(), Arc::clone(&page))).await;
            Ok(page)
        }
        Err(error) => {
            let failure = UpstreamFailure::from(&error);
            if failure == UpstreamFailure::NotFound {
                state.caches.missing.insert(negative_key(target), ()).await;
            }
            Err(ApiError::upstream(Resource::Repository, failure))
        }
    }
}

/// The tags in the database; without any, the failure of the upstream.
async fn list_local(
    state: &AppState,
    target: &Target,
    page: &PageRequest<Tag>,
    failure: UpstreamFailure,
) -> TagListResult {
    let n = page.n.unwrap_or(state.config.settings.max_page_size);
    let rows = tags::list(&state.db, &target.key, page.last.as_ref(), rows_for(n)).await?;
    if rows.is_empty() && page.last.is_none() {
        return Err(ApiError::upstream(Resource::Repository, failure));
    }
    Ok(Arc::new(Page::of_rows(rows, n)))
}

fn negative_key(target: &Target) -> NegativeKey {
    NegativeKey::TagList(target.key.clone())
}
