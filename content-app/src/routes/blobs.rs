//! `GET|HEAD /content/v1/{repository}/blobs/{digest}`: the bytes of a blob, under a signed link.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use oci_types::{Millis, constant_blobs};
use shared_models::db::blobs;

use crate::{
    Content,
    answer::Ask,
    error::ContentError,
    fills::{Bypass, FillError, Part, Reader},
    range::{Asked, asked},
    writer,
};

/// How often a request looks again when the fill it joined stopped, or the blob was stored, in the same moment.
pub(super) const JOIN_ATTEMPTS: usize = 5;

/// Answers a blob to whoever has a valid link to it.
pub(crate) async fn get(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    content: web::Data<Content>,
) -> Result<HttpResponse, ContentError> {
    let (repository, digest) = path.into_inner();
    let (_, digest) = content
        .config
        .link_keys
        .verify(&repository, &digest, request.query_string(), Millis::now())
        .map_err(|_| ContentError::BadLink)?;
    let ask = Ask::of_client(&request, digest);
    if let Some(answer) = ask.not_modified(&request) {
        return Ok(answer);
    }
    if let Some(bytes) = constant_blobs::bytes(ask.digest()) {
        return Ok(ask.constant(bytes));
    }
    for _ in 0..JOIN_ATTEMPTS {
        // Who reads along a fill need not wait for what the storage says.
        let runs =
            !ask.is_head() && content.fills.running(ask.digest()).is_some_and(|fill| fill.is_running());
        if !runs
            && let Some(found) = content.fills.context.open.get(ask.digest()).await?
            && let Some(answer) = ask.stored(&content, found).await?
        {
            content.reads.note(ask.digest());
            return Ok(answer);
        }
        if ask.is_head() {
            return head_of_cold(&ask, &content).await;
        }
        match join(&ask, &content).await {
            Err(FillError::Stopped | FillError::AlreadyStored) => {}
            answer => return Ok(answer?),
        }
    }
    Err(FillError::Stopped.into())
}

/// The headers of a blob that is not here. Nothing is downloaded for them.
async fn head_of_cold(ask: &Ask, content: &Content) -> Result<HttpResponse, ContentError> {
    const STATUS: &str = "tidegate; fwd=miss";
    let size = match content.running_size(ask.digest()) {
        Some(size) => Some(size),
        None => match blobs::find(&content.fills.context.db, ask.digest()).await? {
            Some(row) => row.size,
            None => return Err(FillError::NoSource.into()),
        },
    };
    let Some(size) = size else { return Ok(ask.without_size(STATUS)) };
    Ok(match ask.begin(size, STATUS) {
        Ok((mut response, window)) => ask.finish(&mut response, &window, writer::nothing()),
        Err(unsatisfiable) => *unsatisfiable,
    })
}

/// Joins the fill of a blob that is not here, or starts it. The answer begins when its first byte is here, so that a
/// failure before it is an honest status.
async fn join(ask: &Ask, content: &Content) -> Result<HttpResponse, FillError> {
    let asked_part = ask.part();
    let (mut reader, joined) =
        content.fills.join(ask.digest(), |fill| Reader::join(Arc::clone(fill), asked_part));
    let size = match reader.size().await {
        Err(FillError::NoSpace) => return bypass(ask, content, None).await,
        size => size?,
    };
    let window = match asked(ask.range(), size) {
        Asked::Unsatisfiable => return Ok(ask.unsatisfiable(size)),
        Asked::Whole => 0..size,
        Asked::Window(window) => window,
    };
    let part = if window == (0..size) { Part::Whole } else { Part::Window };
    match reader.readable(window.start, &window, part).await {
        Err(FillError::NoSpace) => return bypass(ask, content, Some(size)).await,
        readable => drop(readable?),
    }
    let status = match (joined, reader.is_unverified(part)) {
        (false, false) => "tidegate; fwd=miss; stored",
        (false, true) => "tidegate; fwd=miss; stored; detail=unverified",
        (true, false) => "tidegate; fwd=miss; stored; collapsed",
        (true, true) => "tidegate; fwd=miss; stored; collapsed; detail=unverified",
    };
    let counted = content.fills.context.metrics.reader();
    match ask.begin(size, status) {
        Ok((mut response, window)) => {
            let context = Arc::clone(&content.fills.context);
            let chunks =
                writer::growing(context, reader, window.clone(), part, content.config.read_size, counted);
            Ok(ask.finish(&mut response, &window, chunks))
        }
        Err(unsatisfiable) => Ok(*unsatisfiable),
    }
}

/// Answers from upstream alone: there is no space to store the blob.
async fn bypass(ask: &Ask, content: &Content, size: Option<u64>) -> Result<HttpResponse, FillError> {
    let (context, policy) = (Arc::clone(&content.fills.context), content.config.fills.clone());
    let range = ask.range().map(str::to_owned);
    let window = move |size| match asked(range.as_deref(), size) {
        Asked::Window(window) => window,
        Asked::Whole => 0..size,
        Asked::Unsatisfiable => size..size,
    };
    let bypass = Bypass::open(context, policy, ask.digest().clone(), size, window, None).await?;
    let status = "tidegate; fwd=bypass; detail=no-space";
    Ok(match ask.begin(bypass.size(), status) {
        Ok((mut response, window)) => ask.finish(&mut response, &window, writer::bypassing(bypass)),
        Err(unsatisfiable) => *unsatisfiable,
    })
}
