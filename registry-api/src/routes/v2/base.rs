//! `GET /v2/` (distribution-spec: end-1): whether the API is served.

use actix_web::{HttpResponse, http::header};

/// 200: no login is needed.
pub(crate) fn get() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("Docker-Distribution-API-Version", "registry/2.0"))
        .json(serde_json::json!({}))
}
