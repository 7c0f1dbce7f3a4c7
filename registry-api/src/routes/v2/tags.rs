//! `GET /v2/{name}/tags/list` (distribution-spec: end-8a, end-8b).

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};
use oci_types::Tag;
use serde::Serialize;

use super::page;
use crate::{
    error::ApiError,
    pull::tag_list::{self, Page},
    state::AppState,
};

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a str,
    tags: &'a [Tag],
}

pub(super) async fn get(
    state: &Arc<AppState>,
    request: &HttpRequest,
    name: &str,
) -> Result<HttpResponse, ApiError> {
    let target = super::target(state, request, name)?;
    let n = page::size(request, state.config.page_max)?;
    let last = match page::parameter(request.query_string(), "last") {
        Some(last) => Some(Tag::parse(&last).map_err(|_| ApiError::Page("last is not a tag"))?),
        None => None,
    };
    let mut response = HttpResponse::Ok();
    super::confirm_ns(request, &mut response);
    if n == Some(0) {
        return Ok(response.json(TagList { name, tags: &[] }));
    }
    let listed = tag_list::list(state, &target, Page { n, last }).await?;
    if let Some(next_last) = &listed.next_last {
        page::link_next(request, &mut response, n.unwrap_or(state.config.page_max), next_last);
    }
    Ok(response.json(TagList { name, tags: &listed.tags }))
}
