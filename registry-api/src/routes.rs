//! The routes of the service, laid out as their paths are. Every request is answered in five steps: parse, resolve, authorize,
//! pull, answer.
//!
//! Repository names contain slashes, so a path is parsed from its end. The router of the framework would try one regular
//! expression after another, which takes longer than everything else that a warm answer needs.

mod admin;
mod endpoint;
mod page;
mod v2;

use std::{borrow::Cow, sync::Arc};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError as _,
    dev::{AppService, HttpServiceFactory, ResourceDef, ServiceRequest, ServiceResponse, fn_service},
};
use http_server::{Route, only_read, unmatched};

use self::endpoint::{Api, Endpoint};
use crate::{
    access::{Action, Principal, RequestContext, RequestId},
    error::ApiError,
    resolve::Target,
    state::AppState,
};

/// Everything below the prefixes of the two APIs.
pub(crate) struct Routes(pub(crate) Arc<AppState>);

impl HttpServiceFactory for Routes {
    fn register(self, config: &mut AppService) {
        for api in [Api::Distribution, Api::Admin] {
            let state = Arc::clone(&self.0);
            let service = fn_service(move |request: ServiceRequest| {
                let state = Arc::clone(&state);
                async move {
                    let (request, _) = request.into_parts();
                    let response = answer(&state, api, &request).await;
                    Ok(ServiceResponse::new(request, response))
                }
            });
            config.register_service(ResourceDef::prefix(api.prefix()), None, service, None);
        }
    }
}

/// A repository in a request: its name as the client sent it, and what it resolves to.
pub(crate) struct Repository<'a> {
    name: Cow<'a, str>,
    target: Arc<Target>,
}

async fn answer(state: &Arc<AppState>, api: Api, request: &HttpRequest) -> HttpResponse {
    let Some((route, endpoint)) = Endpoint::parse(api, request.match_info().unprocessed()) else {
        return unmatched(request);
    };
    request.extensions_mut().insert(Route(route));
    let Some(action) = endpoint.action(request.method()) else {
        return only_read();
    };
    authorize_and_answer(state, request, endpoint, action)
        .await
        .unwrap_or_else(|error| error.error_response())
}

async fn authorize_and_answer(
    state: &Arc<AppState>,
    request: &HttpRequest,
    endpoint: Endpoint<'_, Cow<'_, str>>,
    action: Action,
) -> Result<HttpResponse, ApiError> {
    let endpoint = endpoint.resolve(|name| {
        let target = state.resolver.target(&name, ns(request).as_deref())?;
        Ok::<_, ApiError>(Repository { name, target })
    })?;
    (state.authorize)(&RequestContext {
        principal: Principal::Anonymous,
        action,
        repository: endpoint.repository().map(|repository| &*repository.target),
        request_id: RequestId::random(),
    })?;
    match endpoint {
        Endpoint::Base => Ok(v2::base::get()),
        Endpoint::Catalog => v2::catalog::get(state, request).await,
        Endpoint::Manifest { repository, reference } => {
            v2::manifests::get(state, request, &repository.target, &reference).await
        }
        Endpoint::Blob { repository, digest } => {
            v2::blobs::get(state, request, &repository.target, &digest).await
        }
        Endpoint::Tags { repository } => v2::tags::get(state, request, &repository).await,
        Endpoint::Upstreams => Ok(admin::upstreams(state)),
        Endpoint::Jobs => admin::jobs(state).await,
    }
}

/// The registry that a containerd client requests, `?ns=HOST`.
fn ns(request: &HttpRequest) -> Option<String> {
    page::parameter(request.query_string(), "ns")
}

/// Confirms `?ns=` in the answer, as containerd's mirror protocol requires.
fn confirm_ns(request: &HttpRequest, response: &mut HttpResponseBuilder) {
    if let Some(host) = ns(request) {
        response.insert_header(("OCI-Namespace", host));
    }
}

#[cfg(test)]
mod tests;
