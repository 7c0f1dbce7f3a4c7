//! The routes of the service, laid out as their paths are. Every request is answered in five steps: parse, resolve, authorize,
//! pull, answer.
//!
//! Repository names contain slashes, so a path is parsed from its end. The router of the framework would try one regular
//! expression after another, which takes longer than everything else that a warm answer needs.

mod admin;
mod base_url;
mod endpoint;
mod page;
mod v2;

use std::{borrow::Cow, sync::Arc};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError as _,
    dev::{AppService, HttpServiceFactory, ResourceDef, ServiceRequest, ServiceResponse, fn_service},
};
use http_server::{RequestId, Route, only_read, unmatched};

use self::endpoint::{Api, Endpoint};
use crate::{
    access::{Action, Principal, RequestContext},
    error::ApiError,
    resolve::Target,
    state::AppState,
};

/// Everything below the prefixes of the two APIs.
pub(crate) struct Routes(pub(crate) Arc<AppState>);

impl HttpServiceFactory for Routes {
    fn register(self, config: &mut AppService) {
        let mut register = |path: &str, api, mount: &str| {
            let (state, mount) = (Arc::clone(&self.0), Arc::<str>::from(mount));
            let service = fn_service(move |request: ServiceRequest| {
                let (state, mount) = (Arc::clone(&state), Arc::clone(&mount));
                async move {
                    let (request, _) = request.into_parts();
                    let response = answer(&state, api, &mount, &request).await;
                    Ok(ServiceResponse::new(request, response))
                }
            });
            config.register_service(ResourceDef::prefix(path), None, service, None);
        };
        register(Api::Distribution.prefix(), Api::Distribution, "");
        register(Api::Admin.prefix(), Api::Admin, "");
        // Some clients append `/v2` to the address of a mirror, behind the prefix of a namespace.
        for prefix in self.0.resolver.prefixes() {
            let path = format!("/{prefix}{}", Api::Distribution.prefix());
            register(&path, Api::Distribution, prefix);
        }
    }
}

/// A repository in a request: its name as the client sent it, and what it resolves to.
pub(crate) struct Repository<'a> {
    name: Cow<'a, str>,
    target: Arc<Target>,
}

/// Answers a request. `mount` is the prefix of a namespace, where the path has it before that of the API.
async fn answer(state: &Arc<AppState>, api: Api, mount: &str, request: &HttpRequest) -> HttpResponse {
    let path = request.match_info().unprocessed();
    let is_namespace = || api == Api::Distribution && state.resolver.is_prefix(path.trim_matches('/'));
    let parsed = Endpoint::parse(api, path).or_else(|| is_namespace().then(Endpoint::base));
    let Some((route, endpoint)) = parsed else {
        return unmatched(request);
    };
    request.extensions_mut().insert(Route(route));
    let Some(action) = endpoint.action(request.method()) else {
        return only_read();
    };
    authorize_and_answer(state, request, mount, endpoint, action)
        .await
        .unwrap_or_else(|error| error.error_response())
}

async fn authorize_and_answer(
    state: &Arc<AppState>,
    request: &HttpRequest,
    mount: &str,
    endpoint: Endpoint<'_, Cow<'_, str>>,
    action: Action,
) -> Result<HttpResponse, ApiError> {
    let endpoint = endpoint.resolve(|name| {
        let name = if mount.is_empty() { name } else { Cow::Owned(format!("{mount}/{name}")) };
        let target = state.resolver.target(&name, mirrored_host(state, request).as_deref())?;
        Ok::<_, ApiError>(Repository { name, target })
    })?;
    (state.authorize)(&RequestContext {
        principal: Principal::Anonymous,
        action,
        repository: endpoint.repository().map(|repository| &*repository.target),
        request_id: RequestId::of(request),
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
        Endpoint::Referrers { repository, digest } => {
            v2::referrers::get(state, request, &repository.target, &digest).await
        }
        Endpoint::Upstreams => Ok(admin::upstreams(state)),
        Endpoint::Jobs => admin::jobs(state).await,
    }
}

/// The registry that a containerd client requests, `?ns=HOST`.
fn ns(request: &HttpRequest) -> Option<String> {
    page::parameter(request.query_string(), "ns").filter(|host| !host.is_empty())
}

/// The registry in place of which a client requests this one: [`ns`], unless it is this one.
fn mirrored_host(state: &AppState, request: &HttpRequest) -> Option<String> {
    let host = ns(request)?;
    let base = base_url::base_url(request, state.config.settings.public_url.as_ref());
    let own = base.split_once("://").map_or(base.as_str(), |(_, rest)| rest);
    let own = own.split('/').next().unwrap_or_default();
    (!host.eq_ignore_ascii_case(own)).then_some(host)
}

/// Confirms `?ns=` in the answer when it is a host of the upstream, as containerd's mirror protocol requires.
fn confirm_ns(request: &HttpRequest, target: &Target, response: &mut HttpResponseBuilder) {
    if let Some(host) = ns(request).filter(|host| target.upstream.has_host(host)) {
        response.insert_header(("OCI-Namespace", host));
    }
}

#[cfg(test)]
mod tests;
