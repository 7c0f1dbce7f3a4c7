//! Writes an answer: its head, and the body from its source.

mod file;
mod fill;

use actix_web::{
    HttpResponse,
    body::{None as NoBody, SizedStream},
    web::Bytes,
};
use futures::{Stream, StreamExt as _, stream, stream::BoxStream};

use crate::{answer::Answer, error::FillError};

pub(crate) use file::file_stream;
pub(crate) use fill::{bypass_stream, client_stream, peer_stream};

/// The answer with a body.
pub(crate) fn with_body<E>(
    answer: &Answer,
    chunks: impl Stream<Item = Result<Bytes, E>> + 'static,
) -> HttpResponse
where
    E: std::error::Error + 'static,
{
    let mut response = HttpResponse::build(answer.status);
    answer.headers().into_iter().for_each(|header| {
        response.insert_header(header);
    });
    match answer.length() {
        Some(length) => response.body(SizedStream::new(length, Box::pin(chunks))),
        None => response.finish().map_body(|_, _| NoBody::new()).map_into_boxed_body(),
    }
}

/// The answer without a body. `Content-Length` is sent all the same, where it is known.
pub(crate) fn head_only(answer: &Answer) -> HttpResponse {
    with_body(answer, stream::empty::<Result<Bytes, FillError>>())
}

/// The answer with a part of bytes that are always present.
pub(crate) fn constant(answer: &Answer, bytes: &'static [u8]) -> HttpResponse {
    let (start, end) = (usize::try_from(answer.range.start), usize::try_from(answer.range.end));
    let range = start.unwrap_or(usize::MAX)..end.unwrap_or(usize::MAX);
    let chunk = Bytes::from_static(bytes.get(range).unwrap_or_default());
    with_body(answer, stream::iter([Ok::<_, FillError>(chunk)]))
}

/// The stream after its first chunk arrived: an error before that is known before the response begins.
///
/// # Errors
/// The error in place of the first chunk.
pub(crate) async fn peek_first<E: 'static>(
    mut chunks: BoxStream<'static, Result<Bytes, E>>,
) -> Result<impl Stream<Item = Result<Bytes, E>>, E> {
    let first = chunks.next().await.transpose()?;
    Ok(stream::iter(first.map(Ok)).chain(chunks))
}
