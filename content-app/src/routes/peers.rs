//! `GET|HEAD /internal/v1/fills/{digest}`: the bytes of a blob that is filled or stored here, for another node.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};
use internal_api::{FILLING_HEADER, NODE_HEADER};

use super::{blobs::stored, content::Content, error::ContentError};
use crate::{
    answer::{Answer, Known},
    error::FillError,
    fills::{Fill, Reader},
    request::{BlobRequest, Verified, header_text},
    writer,
};

/// Serves a blob from the running fill or the storage. Does not start a fill.
pub(super) async fn read(
    verified: &Verified,
    request: &HttpRequest,
    content: &Content,
) -> Result<HttpResponse, ContentError> {
    let digest = verified.digest().ok_or(ContentError::InvalidDigest)?.clone();
    if header_text(request, NODE_HEADER) != Some(content.state.config.node_id.as_str()) {
        return Err(ContentError::NotHere);
    }
    let request = BlobRequest::of_peer(request, digest);
    match content.fills.get(&request.digest) {
        // Followers of a fill that waits do not wait with it.
        Some(fill) if request.is_head && fill.is_running() && !fill.is_receiving() => {
            Err(ContentError::NotHere)
        }
        Some(fill) if request.is_head => {
            let mut response = HttpResponse::Ok();
            if fill.is_running() {
                response.insert_header((FILLING_HEADER, "1"));
            }
            Ok(response.finish())
        }
        Some(running) => Ok(fill(&request, content, running).await?),
        None => {
            let blob = content.state.blobs.get(&request.digest).await?.ok_or(ContentError::NotHere)?;
            stored(&request, content, blob).await?.ok_or(ContentError::NotHere)
        }
    }
}

/// Serves a running fill. The response begins when the first byte is present, so that an earlier failure has its own status.
async fn fill(request: &BlobRequest, content: &Content, fill: Arc<Fill>) -> Result<HttpResponse, FillError> {
    let mut reader = Reader::join(fill, request.range.peer_mode());
    let size = reader.size().await?;
    let answer = Answer::new(request, Known::Filling { size, collapsed: true });
    if !answer.is_success() {
        return Ok(writer::head_only(&answer));
    }
    reader.readable(&answer.range).await?;
    let chunks = writer::peer_stream(Arc::clone(&content.state), reader, answer.range.clone());
    Ok(writer::with_body(&answer, chunks))
}
