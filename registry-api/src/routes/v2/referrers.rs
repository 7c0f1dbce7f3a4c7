//! `GET|HEAD /v2/{name}/referrers/{digest}`: the referrers of a manifest as an image index (distribution-spec: end-12a,
//! end-12b).

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, http::header};
use oci_types::{Digest, Referrer, media_type::OCI_INDEX, name::NameError};

use super::CACHE_STATUS;
use crate::{
    error::ApiError,
    pull::referrers,
    resolve::Target,
    routes::{base_url::base_url, confirm_ns, page},
    state::AppState,
};

/// The filters that were applied to the list.
const FILTERS_APPLIED: &str = "OCI-Filters-Applied";

/// The parameter of the filter, and its name in [`FILTERS_APPLIED`].
const ARTIFACT_TYPE: &str = "artifactType";

pub(crate) async fn get(
    state: &Arc<AppState>,
    request: &HttpRequest,
    target: &Arc<Target>,
    digest: &str,
) -> Result<HttpResponse, ApiError> {
    let subject = Digest::parse(digest).map_err(NameError::Digest)?;
    let parameter =
        |name| page::parameter(request.query_string(), name).filter(|value: &String| !value.is_empty());
    let (artifact_type, last) = (parameter(ARTIFACT_TYPE), parameter("last"));
    let (known, outcome) = referrers::list(state, target, &subject).await?;
    let list = known.page(artifact_type.as_deref(), last.as_deref());
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-cache"));
    response.insert_header((header::CONTENT_TYPE, OCI_INDEX)).insert_header((CACHE_STATUS, outcome.header()));
    let filters: Vec<_> = artifact_type.iter().map(|value| (ARTIFACT_TYPE, value.as_str())).collect();
    if !filters.is_empty() {
        response.insert_header((FILTERS_APPLIED, ARTIFACT_TYPE));
    }
    confirm_ns(request, target, &mut response);
    let base = base_url(request, state.config.settings.public_url.as_ref());
    page::link_next(request, &mut response, &base, &filters, list.next_last);
    Ok(response.json(Referrer::index_of(&list.referrers)))
}
