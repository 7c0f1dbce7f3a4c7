//! `GET /v2/` (distribution-spec: end-1): the API is spoken here.

use actix_web::HttpResponse;

/// Clients take from this answer whether a login is needed: none is.
pub(super) fn get() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("Docker-Distribution-API-Version", "registry/2.0"))
        .json(serde_json::json!({}))
}
