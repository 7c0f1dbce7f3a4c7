//! The route of a request in metrics.

/// The route of a request. A service with its own routing sets it in the extensions of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(pub &'static str);

/// The route of requests that match no route.
pub(crate) const UNMATCHED: Route = Route("unmatched");
