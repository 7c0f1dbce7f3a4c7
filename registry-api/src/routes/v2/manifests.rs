//! `GET|HEAD /v2/{name}/manifests/{reference}` (distribution-spec: end-3).

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    body::SizedStream,
    http::{Method, header},
    web,
};
use futures::stream;
use oci_types::{Digest, MediaType, Reference};

use super::accept::accepts;
use crate::{
    cache_status::Outcome,
    error::ApiError,
    pull::{
        manifest::{self, Answer},
        tag,
    },
    state::AppState,
};

pub(super) async fn get(
    state: &Arc<AppState>,
    request: &HttpRequest,
    name: &str,
    reference: &str,
) -> Result<HttpResponse, ApiError> {
    let target = super::target(state, request, name)?;
    let reference = Reference::parse(reference)?;
    let head = request.method() == Method::HEAD;
    let upstream = target.upstream.client.name();
    let pulled = match &reference {
        Reference::Tag(name) => tag::pull(state, &target, name, head).await,
        Reference::Digest(digest) => manifest::pull(state, &target, digest).await,
    };
    let outcome = pulled.as_ref().map_or_else(ApiError::outcome, |(_, outcome)| outcome.label());
    state.metrics.pulled(upstream, "manifest", outcome);
    let (answer, outcome) = pulled?;
    state.pulls.note(&target.repository);
    respond(request, &answer, outcome, head)
}

fn respond(
    request: &HttpRequest,
    answer: &Answer,
    outcome: Outcome,
    head: bool,
) -> Result<HttpResponse, ApiError> {
    let (digest, media_type, size) = match answer {
        Answer::Manifest(manifest) => (&manifest.digest, &manifest.media_type, length(&manifest.body)),
        Answer::Described(described) => (&described.digest, &described.media_type, described.size),
    };
    if !is_acceptable(request, media_type) {
        return Err(ApiError::NotAcceptable);
    }
    let mut response = HttpResponse::Ok();
    let etag = etag(digest);
    let unchanged = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(',').any(|tag| tag.trim() == "*" || tag.trim() == etag));
    if unchanged {
        response.status(actix_web::http::StatusCode::NOT_MODIFIED);
    }
    response
        .insert_header((super::CONTENT_DIGEST, digest.as_str()))
        .insert_header((header::ETAG, etag))
        .insert_header((super::CACHE_STATUS, outcome.header()));
    super::confirm_ns(request, &mut response);
    if unchanged {
        return Ok(response.finish());
    }
    response.insert_header((header::CONTENT_TYPE, media_type.as_str()));
    Ok(match answer {
        Answer::Manifest(manifest) if !head => response.body(manifest.body.clone()),
        _ => response.body(SizedStream::new(size, stream::empty::<Result<web::Bytes, ApiError>>())),
    })
}

fn is_acceptable(request: &HttpRequest, media_type: &MediaType) -> bool {
    accepts(request.headers().get_all(header::ACCEPT).filter_map(|value| value.to_str().ok()), media_type)
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

fn length(body: &web::Bytes) -> u64 {
    u64::try_from(body.len()).unwrap_or(u64::MAX)
}
