//! `/v2/`: the distribution API.

mod accept;
pub(crate) mod base;
pub(crate) mod blobs;
pub(crate) mod catalog;
pub(crate) mod manifests;
mod page;
pub(crate) mod tags;

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponseBuilder};
use shared_models::RepositoryName;

use crate::{error::ApiError, pull_through::resolve::Target, registry::Registry};

/// The registry that a containerd client means, `?ns=HOST`, when it says so.
fn ns(request: &HttpRequest) -> Option<String> {
    page::parameter(request.query_string(), "ns")
}

/// Finds what a request's name, and `?ns=`, leads to.
fn target(registry: &Registry, request: &HttpRequest, name: &str) -> Result<Arc<Target>, ApiError> {
    let name = RepositoryName::parse(name)?;
    registry.resolver.resolve(&name, ns(request).as_deref()).map(Arc::new)
}

/// Confirms `?ns=`, as containerd's mirror protocol asks.
fn confirm_ns(request: &HttpRequest, response: &mut HttpResponseBuilder) {
    if let Some(host) = ns(request) {
        response.insert_header(("OCI-Namespace", host));
    }
}
