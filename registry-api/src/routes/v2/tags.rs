//! `GET /v2/{name}/tags/list` (distribution-spec: end-8a, end-8b).

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared_models::Tag;

use super::page;
use crate::{
    ApiState,
    error::ApiError,
    pull_through::tag_list::{self, Page},
};

#[derive(Serialize)]
struct TagList<'a> {
    name: &'a str,
    tags: &'a [Tag],
}

pub(crate) async fn get(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<ApiState>,
) -> Result<HttpResponse, ApiError> {
    let registry = &state.registry;
    let name = path.into_inner();
    let target = super::target(registry, &request, &name)?;
    let n = page::size(&request, registry.config.page_max)?;
    let last = match page::parameter(request.query_string(), "last") {
        Some(last) => Some(Tag::parse(&last).map_err(|_| ApiError::Page("last is not a tag"))?),
        None => None,
    };
    let mut response = HttpResponse::Ok();
    super::confirm_ns(&request, &mut response);
    if n == Some(0) {
        return Ok(response.json(TagList { name: &name, tags: &[] }));
    }
    let listed = tag_list::list(registry, &target, Page { n, last }).await?;
    if let Some(next_last) = &listed.next_last {
        page::link_next(&request, &mut response, n.unwrap_or(registry.config.page_max), next_last);
    }
    Ok(response.json(TagList { name: &name, tags: &listed.tags }))
}
