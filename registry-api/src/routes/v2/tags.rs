//! `GET /v2/{name}/tags/list` (distribution-spec: end-8a, end-8b).

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header};
use oci_types::Tag;
use serde::Serialize;

use super::CACHE_STATUS;
use crate::{
    error::ApiError,
    pull::tag_list,
    routes::{Repository, base_url::base_url, confirm_ns, page},
    state::AppState,
};

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a str,
    tags: &'a [Tag],
}

pub(crate) async fn get(
    state: &Arc<AppState>,
    request: &HttpRequest,
    repository: &Repository<'_>,
) -> Result<HttpResponse, ApiError> {
    let (name, max) = (&*repository.name, state.config.settings.max_page_size);
    let requested = page::requested(request, max, |last| {
        Tag::parse(last).map_err(|_| ApiError::Page("last is not a tag"))
    })?;
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-cache"));
    confirm_ns(request, &repository.target, &mut response);
    let n = requested.n.unwrap_or(max);
    if n == 0 {
        return Ok(response.json(TagList { name, tags: &[] }));
    }
    let (page, outcome) = tag_list::list(state, &repository.target, &requested, n).await?;
    response.insert_header((CACHE_STATUS, outcome.header()));
    let base = base_url(request, state.config.settings.public_url.as_ref());
    page::link_next(request, &mut response, &base, &[("n", &n.to_string())], page.next_last.as_deref());
    Ok(response.json(TagList { name, tags: &page.items }))
}
