//! `GET|HEAD /v2/{name}/blobs/{digest}` (distribution-spec: end-2).

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{self, SizedStream},
    http::{Method, StatusCode, header},
    web,
};
use futures::stream;
use oci_types::{Digest, name::NameError};
use upstream_client::Priority;

use super::{CACHE_STATUS, CONTENT_DIGEST};
use crate::{
    answer::BlobAnswer,
    error::ApiError,
    pull::blob,
    resolve::Target,
    routes::{base_url::base_url, confirm_ns},
    state::AppState,
};

pub(crate) async fn get(
    state: &Arc<AppState>,
    request: &HttpRequest,
    target: &Arc<Target>,
    digest: &str,
) -> Result<HttpResponse, ApiError> {
    let digest = Digest::parse(digest).map_err(NameError::Digest)?;
    let head = request.method() == Method::HEAD;
    let base = base_url(request, state.config.settings.public_url.as_ref());
    let result = blob::pull(state, target, &digest, head, &base, Priority::Client).await;
    let outcome = result.as_ref().map_or_else(ApiError::outcome, |(_, outcome)| outcome.label());
    state.metrics.count_pull(target.upstream.client.name(), "blob", outcome);
    let (answer, outcome) = result?;
    let mut response = HttpResponse::Ok();
    response.insert_header((CONTENT_DIGEST, digest.as_str())).insert_header((CACHE_STATUS, outcome.header()));
    confirm_ns(request, target, &mut response);
    Ok(match answer {
        BlobAnswer::Redirect(location) => response
            .status(StatusCode::TEMPORARY_REDIRECT)
            .insert_header((header::LOCATION, location))
            // The link expires, so the redirect must not be cached.
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .finish(),
        BlobAnswer::Constant(bytes) if !head => {
            response.content_type("application/octet-stream").body(web::Bytes::from_static(bytes))
        }
        BlobAnswer::Constant(bytes) => describe(&mut response, u64::try_from(bytes.len()).ok()),
        BlobAnswer::Described(size) => describe(&mut response, size),
    })
}

fn describe(response: &mut HttpResponseBuilder, size: Option<u64>) -> HttpResponse {
    response.content_type("application/octet-stream").insert_header((header::ACCEPT_RANGES, "bytes"));
    match size {
        Some(size) => response.body(SizedStream::new(size, stream::empty::<Result<web::Bytes, ApiError>>())),
        // RFC 9110, section 8.6: a length that is not known is omitted.
        None => response.finish().map_body(|_, _| body::None::new()).map_into_boxed_body(),
    }
}
