//! `/v2/`: the distribution API.
//!
//! Repository names have slashes, so a path is read from its end. The framework's router would do that by trying one
//! regular expression after the other, which takes longer than all else that a warm answer needs.

mod accept;
mod base;
mod blobs;
mod catalog;
mod endpoint;
mod manifests;
mod page;
mod tags;

use std::sync::Arc;

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError as _,
    dev::{AppService, HttpServiceFactory, ResourceDef, ServiceRequest, ServiceResponse, fn_service},
    http::header::HeaderName,
};
use http_server::{Route, is_read, only_read, unmatched};

use self::endpoint::Endpoint;
use crate::{error::ApiError, resolve::Target, state::AppState};

/// The digest of what is answered.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// RFC 9211
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// All that begins with `/v2`.
pub(crate) struct V2(pub(crate) Arc<AppState>);

impl HttpServiceFactory for V2 {
    fn register(self, config: &mut AppService) {
        let service = fn_service(move |request: ServiceRequest| {
            let state = Arc::clone(&self.0);
            async move {
                let (request, _) = request.into_parts();
                let response = answer(&state, &request).await;
                Ok(ServiceResponse::new(request, response))
            }
        });
        config.register_service(ResourceDef::prefix("/v2"), None, service, None);
    }
}

async fn answer(state: &Arc<AppState>, request: &HttpRequest) -> HttpResponse {
    let Some((route, endpoint)) = Endpoint::parse(request.match_info().unprocessed()) else {
        return unmatched(request);
    };
    request.extensions_mut().insert(Route(route));
    if !is_read(request.method()) {
        return only_read();
    }
    let answered = match endpoint {
        Endpoint::Base => Ok(base::get()),
        Endpoint::Catalog => catalog::get(state, request).await,
        Endpoint::Manifest { name, reference } => manifests::get(state, request, &name, &reference).await,
        Endpoint::Blob { name, digest } => blobs::get(state, request, &name, &digest).await,
        Endpoint::Tags { name } => tags::get(state, request, &name).await,
    };
    answered.unwrap_or_else(|error| error.error_response())
}

/// The registry that a containerd client means, `?ns=HOST`, when it says so.
fn ns(request: &HttpRequest) -> Option<String> {
    page::parameter(request.query_string(), "ns")
}

/// Finds what a request's name, and `?ns=`, leads to.
fn target(state: &AppState, request: &HttpRequest, name: &str) -> Result<Arc<Target>, ApiError> {
    state.resolver.target(name, ns(request).as_deref())
}

/// Confirms `?ns=`, as containerd's mirror protocol asks.
fn confirm_ns(request: &HttpRequest, response: &mut HttpResponseBuilder) {
    if let Some(host) = ns(request) {
        response.insert_header(("OCI-Namespace", host));
    }
}
