//! `GET|HEAD /v2/{name}/manifests/{reference}` (distribution-spec: end-3).

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    body::SizedStream,
    http::{Method, StatusCode, header},
    web,
};
use futures::stream;
use http_server::if_none_match;
use oci_types::{MediaType, Reference};
use upstream_client::Priority;

use super::{CACHE_STATUS, CONTENT_DIGEST, accept::accepts};
use crate::{
    answer::ManifestAnswer,
    cache_status::Outcome,
    error::ApiError,
    pull::{manifest, tag},
    resolve::Target,
    routes::confirm_ns,
    state::AppState,
};

pub(crate) async fn get(
    state: &Arc<AppState>,
    request: &HttpRequest,
    target: &Arc<Target>,
    reference: &str,
) -> Result<HttpResponse, ApiError> {
    let head = request.method() == Method::HEAD;
    let reference = Reference::parse(reference)?;
    let cache_control = match &reference {
        Reference::Tag(_) => "no-cache, no-transform",
        Reference::Digest(_) => "private, max-age=31536000, immutable, no-transform",
    };
    let result = match reference {
        Reference::Tag(tag) => tag::pull(state, target, &tag, head).await,
        Reference::Digest(digest) => manifest::pull(state, target, &digest, Priority::Client)
            .await
            .map(|(manifest, outcome)| (ManifestAnswer::Manifest(manifest), outcome)),
    };
    let outcome = result.as_ref().map_or_else(ApiError::outcome, |(_, outcome)| outcome.label());
    state.metrics.count_pull(target.upstream.client.name(), "manifest", outcome);
    let (answer, outcome) = result?;
    state.last_pulls.touch(&target.key);
    let mut response = respond(request, target, &answer, outcome, head)?;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static(cache_control));
    headers.insert(header::VARY, header::HeaderValue::from_static("Accept"));
    Ok(response)
}

fn respond(
    request: &HttpRequest,
    target: &Target,
    answer: &ManifestAnswer,
    outcome: Outcome,
    head: bool,
) -> Result<HttpResponse, ApiError> {
    let (digest, media_type, size) = match answer {
        ManifestAnswer::Manifest(manifest) => {
            let size = u64::try_from(manifest.body.len()).unwrap_or(u64::MAX);
            (&manifest.digest, &manifest.media_type, size)
        }
        ManifestAnswer::Headers(headers) => (&headers.digest, &headers.media_type, headers.size),
    };
    if !is_acceptable(request, media_type) {
        return Err(ApiError::NotAcceptable(media_type.clone()));
    }
    let etag = format!("\"{digest}\"");
    let not_modified = if_none_match(request.headers(), &etag);
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_DIGEST, digest.as_str()))
        .insert_header((header::ETAG, etag))
        .insert_header((CACHE_STATUS, outcome.header()));
    confirm_ns(request, target, &mut response);
    if not_modified {
        return Ok(response.status(StatusCode::NOT_MODIFIED).finish());
    }
    response.insert_header((header::CONTENT_TYPE, media_type.as_str()));
    Ok(match answer {
        ManifestAnswer::Manifest(manifest) if !head => response.body(manifest.body.clone()),
        _ => response.body(SizedStream::new(size, stream::empty::<Result<web::Bytes, ApiError>>())),
    })
}

fn is_acceptable(request: &HttpRequest, media_type: &MediaType) -> bool {
    accepts(request.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok()), media_type)
}
