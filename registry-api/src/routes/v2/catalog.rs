//! `GET /v2/_catalog`: the repositories that are known here, in lexical order.

use actix_web::{HttpRequest, HttpResponse};
use oci_types::RepositoryName;
use serde::Serialize;
use shared_models::db::repositories;

use super::page;
use crate::{error::ApiError, state::AppState};

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [RepositoryName],
}

pub(super) async fn get(state: &AppState, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let most = state.config.page_max;
    let n = page::size(request, most)?.unwrap_or(most);
    let last = match page::parameter(request.query_string(), "last") {
        Some(last) => {
            Some(RepositoryName::parse(&last).map_err(|_| ApiError::Page("last is not a repository name"))?)
        }
        None => None,
    };
    if n == 0 {
        return Ok(HttpResponse::Ok().json(Catalog { repositories: &[] }));
    }
    let mut found = repositories::catalog(&state.db, last.as_ref(), i64::from(n) + 1).await?;
    let more = found.len() > usize::try_from(n).unwrap_or(usize::MAX);
    if more {
        found.pop();
    }
    let mut response = HttpResponse::Ok();
    if let Some(last) = found.last().filter(|_| more) {
        page::link_next(request, &mut response, n, last.as_str());
    }
    Ok(response.json(Catalog { repositories: &found }))
}
