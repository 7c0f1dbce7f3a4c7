//! `GET|HEAD /internal/v1/fills/{digest}`: the bytes of a blob that is filled or stored here, for another node, under a
//! signature.

use std::{ops::Range, sync::Arc};

use actix_web::{HttpRequest, HttpResponse, web};
use shared_models::Digest;

use super::fills::check;
use crate::{
    Content,
    ask::Ask,
    body,
    error::ContentError,
    fill::{Fill, FillError, Part, Reader},
    range::{Asked, asked},
};

/// Answers from the storage or from the running fill. Nothing is started for it.
pub(crate) async fn read(
    request: HttpRequest,
    path: web::Path<String>,
    content: web::Data<Content>,
) -> Result<HttpResponse, ContentError> {
    check(&request, &content)?;
    let digest = Digest::parse(&path.into_inner()).map_err(|_| ContentError::BadDigest)?;
    let ask = Ask::of_peer(&request, digest);
    if let Some(found) = content.open.get(ask.digest()).await?
        && let Some(answer) = ask.stored(&content, found).await?
    {
        return Ok(answer);
    }
    let fill = content.fills.running(ask.digest()).ok_or(ContentError::NotHere)?;
    if ask.is_head() {
        return Ok(HttpResponse::Ok().finish());
    }
    Ok(tail(ask, &content, fill).await?)
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
    let part = part(&window, size);
    if !window.is_empty() {
        reader.readable(window.start, &window, part).await?;
    }
    let ask = ask.tagged(format!("\"g{}\"", reader.generation()));
    let chunk = content.config.read_size;
    Ok(match ask.begin(size, "tidegate; fwd=miss; collapsed") {
        Ok((mut response, window)) => {
            let chunks =
                body::tailing(Arc::clone(&content.fills.context), reader, window.clone(), part, chunk);
            ask.finish(&mut response, &window, chunks)
        }
        Err(unsatisfiable) => *unsatisfiable,
    })
}

/// To the end of the blob a peer reads bytes that were verified, anything else as it lands: it verifies the whole itself.
fn part(window: &Range<u64>, size: u64) -> Part {
    if window.end == size { Part::Rest } else { Part::Window }
}
