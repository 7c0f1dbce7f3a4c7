//! `GET|HEAD /content/v1/{repository}/blobs/{digest}`: a blob, for a client with a content link.

use std::{pin::pin, sync::Arc};

use actix_web::{HttpRequest, HttpResponse};
use blob_store::StoredBlob;
use futures::TryStreamExt as _;
use oci_types::constant_blobs;
use shared_models::db::blobs;
use tokio::time::timeout;

use super::{content::Content, error::ContentError};
use crate::{
    answer::{Answer, BodySource, Known},
    error::FillError,
    fills::{self, Bypass, Reader},
    read_mode::ReadMode,
    request::{BlobRequest, Verified},
    writer,
};

/// Attempts of a request whose fill stopped, or stored the blob, at the same moment.
pub(super) const MAX_JOIN_ATTEMPTS: usize = 5;

/// Serves a blob: constant, from the storage, or from its fill.
pub(super) async fn get(
    verified: &Verified,
    request: &HttpRequest,
    content: &Content,
) -> Result<HttpResponse, ContentError> {
    let digest = verified.digest().ok_or(ContentError::InvalidDigest)?.clone();
    let request = BlobRequest::of_client(request, digest, verified.repository().cloned());
    if request.is_not_modified {
        return Ok(writer::head_only(&Answer::not_modified(&request)));
    }
    if let Some(bytes) = constant_blobs::bytes(&request.digest) {
        let answer = Answer::new(&request, Known::Constant(bytes));
        return Ok(match answer.source {
            BodySource::None => writer::head_only(&answer),
            _ => writer::constant(&answer, bytes),
        });
    }
    let mut answering = pin!(stored_or_filled(&request, content));
    match timeout(content.state.config.node.client_wait, &mut answering).await {
        Ok(response) => response,
        Err(_elapsed) => {
            if let Some(fill) = content.fills.get(&request.digest) {
                fills::linger(fill, request.range.client_mode());
            }
            Err(FillError::ClientWait.into())
        }
    }
}

async fn stored_or_filled(request: &BlobRequest, content: &Content) -> Result<HttpResponse, ContentError> {
    for _ in 0..MAX_JOIN_ATTEMPTS {
        // A reader of a running fill does not wait for the storage.
        let is_running =
            !request.is_head && content.fills.get(&request.digest).is_some_and(|fill| fill.is_running());
        if !is_running
            && let Some(blob) = content.state.blobs.get(&request.digest).await?
            && let Some(response) = stored(request, content, blob).await?
        {
            content.state.reads.touch(&request.digest);
            return Ok(response);
        }
        if request.is_head {
            return head_on_demand(request, content).await;
        }
        match fill(request, content).await {
            Err(FillError::Stopped | FillError::AlreadyStored) => {}
            response => return Ok(response?),
        }
    }
    Err(FillError::Stopped.into())
}

/// Serves a stored blob; `None` when its storage is unavailable before the first byte.
pub(super) async fn stored(
    request: &BlobRequest,
    content: &Content,
    blob: StoredBlob,
) -> Result<Option<HttpResponse>, ContentError> {
    let answer = Answer::new(request, Known::Stored { size: blob.size() });
    if answer.source == BodySource::None {
        return Ok(Some(writer::head_only(&answer)));
    }
    let range = answer.range.clone();
    let object = match blob {
        StoredBlob::File(blob) => {
            let chunks = writer::file_stream(blob.file, range, content.state.config.node.read_size);
            let (blobs, digest) = (content.state.blobs.clone(), request.digest.clone());
            let chunks = chunks.inspect_err(move |error| blobs.read_failed(&digest, error));
            return Ok(Some(writer::with_body(&answer, chunks)));
        }
        StoredBlob::Object(object) => object,
    };
    match writer::peek_first(object.get_range(range)).await {
        Ok(chunks) => Ok(Some(writer::with_body(&answer, chunks))),
        Err(error) if error.is_unavailable() => {
            tracing::warn!(digest = %request.digest, %error, "failed to read a stored blob, falling back to upstream");
            content.state.blobs.mark_unreadable(&request.digest).await;
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The headers of a blob that is not stored. Nothing is downloaded for them.
async fn head_on_demand(request: &BlobRequest, content: &Content) -> Result<HttpResponse, ContentError> {
    let filling = content.fills.get(&request.digest).and_then(|fill| fill.size());
    let size = match filling {
        Some(size) => Some(size),
        None => {
            let row = blobs::find(&content.state.db, &request.digest).await?;
            row.ok_or(FillError::NoSource)?.size
        }
    };
    Ok(writer::head_only(&Answer::new(request, Known::OnDemand { size })))
}

/// Joins or starts the fill. The response begins when the first byte is present, so that an earlier failure has its own
/// status.
async fn fill(request: &BlobRequest, content: &Content) -> Result<HttpResponse, FillError> {
    let mode = request.range.client_mode();
    let (mut reader, collapsed) = content
        .fills
        .join(&request.digest, request.repository.as_ref(), |fill| Reader::join(Arc::clone(fill), mode));
    // Repeats while the sources contradict the size that was stated before; `Choice` bounds how often.
    let answer = loop {
        let size = match reader.size().await {
            Err(error) if error.permits_bypass() => {
                return bypass(request, content, reader.fill().size()).await;
            }
            size => size?,
        };
        let answer = Answer::new(request, Known::Filling { size, collapsed });
        if !answer.is_success() {
            return Ok(writer::head_only(&answer));
        }
        reader.set_mode(if answer.is_whole() { ReadMode::Whole } else { ReadMode::Range });
        match reader.readable(&answer.range).await {
            Ok(_) => break answer,
            Err(error) if error.permits_bypass() => return bypass(request, content, Some(size)).await,
            Err(FillError::WrongSize) => {}
            Err(error) => return Err(error),
        }
    };
    let answer = if reader.is_unverified() { answer.unverified() } else { answer };
    let chunks = writer::client_stream(Arc::clone(&content.state), reader, answer.range.clone());
    Ok(writer::with_body(&answer, chunks))
}

/// Serves the blob from an upstream: the disk has no space to store it. `size`: as stated before.
async fn bypass(
    request: &BlobRequest,
    content: &Content,
    size: Option<u64>,
) -> Result<HttpResponse, FillError> {
    let open = || {
        let state = Arc::clone(&content.state);
        Bypass::open(state, request.digest.clone(), request.repository.as_ref(), size)
    };
    match serve(request, content, open().await?).await {
        // The size that was stated before is not that of the sources.
        Err(FillError::WrongSize) => {
            let mut bypass = open().await?;
            bypass.query_size().await?;
            serve(request, content, bypass).await
        }
        response => response,
    }
}

async fn serve(request: &BlobRequest, content: &Content, bypass: Bypass) -> Result<HttpResponse, FillError> {
    let answer = Answer::new(request, Known::Bypassed { size: bypass.size() });
    if !answer.is_success() {
        return Ok(writer::head_only(&answer));
    }
    let bypass = bypass.connect(answer.range.clone(), None).await?;
    let chunks = writer::bypass_stream(bypass, content.state.config.node.client_wait);
    Ok(writer::with_body(&answer, chunks))
}
