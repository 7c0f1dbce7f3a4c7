//! The tags of a repository: upstream's list, kept for the tag TTL; ours when upstream cannot say.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::future::Cache;
use oci_types::{RepositoryName, Tag};
use shared_models::db::tags;
use upstream_client::Priority;

use super::{decide::Failure, failure::failure};
use crate::{
    caches::Missing,
    error::{ApiError, Asked},
    resolve::Target,
    single_flight::Flights,
    state::AppState,
};

/// Which page of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Page {
    /// At most so many; upstream's own choice when the client names none.
    pub(crate) n: Option<u32>,
    /// Only what comes after this.
    pub(crate) last: Option<Tag>,
}

/// One page, and where the next one begins.
#[derive(Debug, Clone)]
pub(crate) struct Tags {
    pub(crate) tags: Vec<Tag>,
    /// `last` of the next page, when there is one.
    pub(crate) next_last: Option<String>,
}

type Key = (RepositoryName, Page);

/// The lists that were asked for lately.
pub(crate) struct TagLists {
    pages: Cache<Key, (Instant, Arc<Tags>)>,
    flights: Flights<Key, (), Result<Arc<Tags>, ApiError>>,
}

/// The most pages that are kept, and for how long at most.
const MOST_PAGES: u64 = 1_000;
const LONGEST: Duration = Duration::from_secs(3600);

impl TagLists {
    pub(crate) fn new(runtime: tokio::runtime::Handle) -> Self {
        Self {
            pages: Cache::builder().max_capacity(MOST_PAGES).time_to_live(LONGEST).build(),
            flights: Flights::new(runtime),
        }
    }
}

/// Answers one page of a repository's tags.
pub(crate) async fn list(
    state: &Arc<AppState>,
    target: &Arc<Target>,
    page: Page,
) -> Result<Arc<Tags>, ApiError> {
    if target.upstream.offline {
        return ours(state, target, &page, Failure::Unavailable { retry_after: None }).await;
    }
    let key = (target.repository.clone(), page);
    if let Some((fetched_at, tags)) = state.tag_lists.pages.get(&key).await
        && fetched_at.elapsed() < target.upstream.tag_ttl
    {
        return Ok(tags);
    }
    let (flight, _) = state.tag_lists.flights.join(key.clone(), |_| {
        let (state, target) = (Arc::clone(state), Arc::clone(target));
        async move { ask(&state, &target, key).await }
    });
    flight.result().await.unwrap_or(Err(ApiError::Internal))
}

async fn ask(state: &AppState, target: &Target, key: Key) -> Result<Arc<Tags>, ApiError> {
    let page = &key.1;
    let missing = Missing::TagList(target.repository.clone());
    if state.memory.missing.contains_key(&missing) {
        return ours(state, target, page, Failure::NotFound).await;
    }
    let last = page.last.as_ref().map(Tag::as_str);
    match target.upstream.client.list_tags(&target.upstream_name, page.n, last, Priority::Client).await {
        Ok(told) => {
            let tags = Arc::new(cut(Tags { tags: told.tags, next_last: told.next_last }, page.n));
            state.tag_lists.pages.insert(key, (Instant::now(), Arc::clone(&tags))).await;
            Ok(tags)
        }
        Err(error) => {
            let failure = failure(&error);
            if failure == Failure::NotFound {
                state.memory.missing.insert(missing, ()).await;
            }
            ours(state, target, page, failure).await
        }
    }
}

/// An upstream that ignores `n` is cut to it, so that a client gets no more than it asked for.
fn cut(mut told: Tags, n: Option<u32>) -> Tags {
    let Some(n) = n.and_then(|n| usize::try_from(n).ok()) else { return told };
    if told.tags.len() > n {
        told.tags.truncate(n);
        told.next_last = told.tags.last().map(ToString::to_string);
    }
    told
}

/// The tags that are known here; where there is none, why upstream did not tell.
async fn ours(
    state: &AppState,
    target: &Target,
    page: &Page,
    failure: Failure,
) -> Result<Arc<Tags>, ApiError> {
    let n = page.n.unwrap_or(state.config.page_max);
    let mut known = tags::list(&state.db, &target.repository, page.last.as_ref(), i64::from(n) + 1).await?;
    if known.is_empty() && page.last.is_none() {
        return Err(ApiError::Refused { asked: Asked::Repository, refusal: failure, negative: false });
    }
    let more = known.len() > usize::try_from(n).unwrap_or(usize::MAX);
    if more {
        known.pop();
    }
    let next_last = if more { known.last().map(ToString::to_string) } else { None };
    Ok(Arc::new(Tags { tags: known, next_last }))
}
