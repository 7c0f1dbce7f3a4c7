//! The routes of the service. Each request passes verify → answer → write.

mod blobs;
mod content;
mod error;
mod fills;
mod peers;
#[cfg(test)]
mod tests;
mod unknown_keys;

use actix_web::{HttpRequest, HttpResponse, http::Method, web};

use crate::request::Proof;

pub(crate) use content::Content;
use error::ContentError;

/// The listener that serves a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// For clients.
    Public,
    /// For registry-api, other nodes and operators.
    Internal,
}

/// A path, what a request to it must prove, and what its methods do.
pub(crate) struct Route {
    pub(crate) listener: Listener,
    pub(crate) path: &'static str,
    pub(crate) proof: Proof,
    pub(crate) actions: &'static [(Method, Action)],
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Serves a blob to a client.
    GetBlob,
    /// Lists the fills of this node.
    ListFills,
    /// Starts a fill, and may wait for its end.
    StartFill,
    /// Serves a blob that is filled or stored here to another node.
    ReadFill,
}

/// All routes.
pub(crate) static ROUTES: &[Route] = &[
    Route {
        listener: Listener::Public,
        path: "/content/v1/{repository:.+}/blobs/{digest}",
        proof: Proof::ContentLink,
        actions: &[(Method::GET, Action::GetBlob), (Method::HEAD, Action::GetBlob)],
    },
    Route {
        listener: Listener::Internal,
        path: "/internal/v1/fills",
        proof: Proof::SignedRequest,
        actions: &[(Method::GET, Action::ListFills)],
    },
    Route {
        listener: Listener::Internal,
        path: "/internal/v1/fills/{digest}",
        proof: Proof::SignedRequest,
        actions: &[
            (Method::POST, Action::StartFill),
            (Method::GET, Action::ReadFill),
            (Method::HEAD, Action::ReadFill),
        ],
    },
];

/// Mounts the routes of a listener.
pub(crate) fn mount(config: &mut web::ServiceConfig, content: &web::Data<Content>, listener: Listener) {
    config.app_data(content.clone());
    for route in ROUTES.iter().filter(|route| route.listener == listener) {
        let mut resource = web::resource(route.path);
        for (method, action) in route.actions {
            let handler = move |request: HttpRequest, content: web::Data<Content>| {
                handle(route.proof, *action, request, content)
            };
            resource = resource.route(web::method(method.clone()).to(handler));
        }
        config.service(resource);
    }
}

async fn handle(
    proof: Proof,
    action: Action,
    request: HttpRequest,
    content: web::Data<Content>,
) -> Result<HttpResponse, ContentError> {
    let verified = proof
        .verify(&request, &content.state.config.link_keys)
        .inspect_err(|error| content.unknown_keys.note(error))?;
    match action {
        Action::GetBlob => blobs::get(&verified, &request, &content).await,
        Action::ListFills => Ok(fills::list(&verified, &content)),
        Action::StartFill => fills::start(&verified, &request, &content).await,
        Action::ReadFill => peers::read(&verified, &request, &content).await,
    }
}
