//! `GET|HEAD /internal/v1/fills/{digest}`: the bytes of a blob that is filled or stored here, for another node, under a
//! signature.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use internal_api::{FILLING_HEADER, NODE_HEADER};
use oci_types::Digest;

use super::fills::check;
use crate::{
    Content,
    answer::Ask,
    error::ContentError,
    fills::{Fill, FillError, Part, Reader},
    range::{Asked, asked},
    writer,
};

/// Answers from the storage or from the running fill. Nothing is started for it.
pub(crate) async fn read(
    request: HttpRequest,
    path: web::Path<String>,
    content: web::Data<Content>,
) -> Result<HttpResponse, ContentError> {
    check(&request, &content)?;
    let digest = Digest::parse(&path.into_inner()).map_err(|_| ContentError::BadDigest)?;
    let meant = request.headers().get(NODE_HEADER).and_then(|node| node.to_str().ok());
    if meant != Some(content.config.node_id.as_str()) {
        return Err(ContentError::NotHere);
    }
    let ask = Ask::of_peer(&request, digest);
    if let Some(fill) = content.fills.running(ask.digest()) {
        if ask.is_head() {
            let mut answer = HttpResponse::Ok();
            if fill.is_running() {
                answer.insert_header((FILLING_HEADER, "1"));
            }
            return Ok(answer.finish());
        }
        return Ok(tail(ask, &content, fill).await?);
    }
    match content.fills.context.open.get(ask.digest()).await? {
        Some(found) => ask.stored(&content, found).await?.ok_or(ContentError::NotHere),
        None => Err(ContentError::NotHere),
    }
}

/// Follows the fill. The answer begins when its first byte is here, so that a failure before it is an honest status.
async fn tail(ask: Ask, content: &Content, fill: Arc<Fill>) -> Result<HttpResponse, FillError> {
    // Before the size is known, only the form of the range tells whether it ends with the blob.
    let runs_on = ask.range().is_none_or(|range| range.trim_end().ends_with('-'));
    let mut reader = Reader::join(fill, if runs_on { Part::Rest } else { Part::Window });
    let size = reader.size().await?;
    let window = match asked(ask.range(), size) {
        Asked::Unsatisfiable => return Ok(ask.unsatisfiable(size)),
        Asked::Whole => 0..size,
        Asked::Window(window) => window,
    };
    // To the end in order a peer reads bytes that were verified, anything else as it lands: it verifies the whole itself.
    let part = if runs_on { Part::Rest } else { Part::Window };
    reader.readable(window.start, &window, part).await?;
    let ask = ask.tagged(format!("\"g{}\"", reader.generation()));
    let chunk = content.config.read_size;
    Ok(match ask.begin(size, "tidegate; fwd=miss; collapsed") {
        Ok((mut response, window)) => {
            let chunks =
                writer::tailing(Arc::clone(&content.fills.context), reader, window.clone(), part, chunk);
            ask.finish(&mut response, &window, chunks)
        }
        Err(unsatisfiable) => *unsatisfiable,
    })
}
