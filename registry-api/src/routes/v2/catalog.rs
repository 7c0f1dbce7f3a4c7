//! `GET /v2/_catalog`: the repositories in the database, in lexical order.

use actix_web::{HttpRequest, HttpResponse, http::header};
use oci_types::RepositoryName;
use serde::Serialize;
use shared_models::db::repositories;

use crate::{
    error::ApiError,
    listing::{Page, PageRequest, rows_for},
    routes::{base_url::base_url, page},
    state::AppState,
};

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [RepositoryName],
}

pub(crate) async fn get(state: &AppState, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let max = state.config.settings.max_page_size;
    let PageRequest { n, last } = page::requested(request, max, |last| {
        RepositoryName::parse(last).map_err(|_| ApiError::Page("last is not a repository name"))
    })?;
    let n = n.unwrap_or(max);
    if n == 0 {
        return Ok(HttpResponse::Ok().json(Catalog { repositories: &[] }));
    }
    let page = Page::of_rows(repositories::catalog(&state.db, last.as_ref(), rows_for(n)).await?, n);
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-cache"));
    let base = base_url(request, state.config.settings.public_url.as_ref());
    page::link_next(request, &mut response, &base, &[("n", &n.to_string())], page.next_last.as_deref());
    Ok(response.json(Catalog { repositories: &page.items }))
}
