//! Responses to requests that no route serves.

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::{BodySize, MessageBody as _},
    dev::ServiceResponse,
    http::{
        Method, StatusCode,
        header::{ALLOW, HeaderValue},
    },
};

use crate::{OciCode, OciError, route::UNMATCHED};

/// The response to a request that matches no route.
pub fn unmatched(request: &HttpRequest) -> HttpResponse {
    request.extensions_mut().insert(UNMATCHED);
    if is_read(request.method()) {
        OciError::new(OciCode::Unsupported, "there is nothing at this path")
            .with_status(StatusCode::NOT_FOUND)
            .response()
    } else {
        only_read()
    }
}

/// Whether a method is one of those that [`only_read`] lists.
pub fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The response to any other method where only `GET` and `HEAD` are served (RFC 9110, section
/// 15.5.6).
pub fn only_read() -> HttpResponse {
    method_not_served(Some(HeaderValue::from_static("GET, HEAD")))
}

fn method_not_served(allowed: Option<HeaderValue>) -> HttpResponse {
    let mut response = OciError::new(OciCode::Unsupported, "this method is not served here").response();
    if let Some(allowed) = allowed {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// Adds an error body to the framework's empty response to an unsupported method of a known path.
pub(crate) fn explained(response: ServiceResponse) -> ServiceResponse {
    let silent = matches!(response.response().body().size(), BodySize::None | BodySize::Sized(0));
    if silent && response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = response.headers().get(ALLOW).cloned();
        response.into_response(method_not_served(allowed))
    } else {
        response
    }
}
