//! `GET|HEAD /v2/{name}/blobs/{digest}` (distribution-spec: end-2).

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    body::{self, SizedStream},
    http::{Method, header},
    web,
};
use futures::stream;
use oci_types::{Digest, name::NameError};

use crate::{
    error::ApiError,
    pull::blob::{self, BlobAnswer},
    state::AppState,
};

pub(super) async fn get(
    state: &Arc<AppState>,
    request: &HttpRequest,
    name: &str,
    digest: &str,
) -> Result<HttpResponse, ApiError> {
    let target = super::target(state, request, name)?;
    let digest = Digest::parse(digest).map_err(NameError::Digest)?;
    let head = request.method() == Method::HEAD;
    let pulled = blob::pull(state, &target, &digest, head).await;
    let outcome = pulled.as_ref().map_or_else(ApiError::outcome, |(_, outcome)| outcome.label());
    state.metrics.pulled(target.upstream.client.name(), "blob", outcome);
    let (answer, outcome) = pulled?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((super::CONTENT_DIGEST, digest.as_str()))
        .insert_header((super::CACHE_STATUS, outcome.header()));
    super::confirm_ns(request, &mut response);
    Ok(match answer {
        BlobAnswer::Redirect(location) => response
            .status(actix_web::http::StatusCode::TEMPORARY_REDIRECT)
            .insert_header((header::LOCATION, location))
            // The link expires: a client that keeps it must not keep it longer.
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .finish(),
        BlobAnswer::Constant(bytes) if !head => {
            response.content_type("application/octet-stream").body(web::Bytes::from_static(bytes))
        }
        BlobAnswer::Constant(bytes) => describe(&mut response, u64::try_from(bytes.len()).ok()),
        BlobAnswer::Described(size) => describe(&mut response, size),
    })
}

fn describe(response: &mut actix_web::HttpResponseBuilder, size: Option<u64>) -> HttpResponse {
    response.content_type("application/octet-stream").insert_header((header::ACCEPT_RANGES, "bytes"));
    match size {
        Some(size) => response.body(SizedStream::new(size, stream::empty::<Result<web::Bytes, ApiError>>())),
        // RFC 9110, 8.6: a length that is not known is omitted. 0 would be a claim.
        None => response.finish().map_body(|_, _| body::None::new()).map_into_boxed_body(),
    }
}
