//! Blobs (distribution-spec: end-2).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oci_types::{Digest, RepositoryName};

use crate::{
    Priority, Upstream, UpstreamError,
    body::{ContentRange, pieces},
    dial::Lane,
    error::Failure,
    manifest::{declared_digest, is_web_page},
    transport::{Answer, Ask, content_length},
};

/// Upstream has the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobHead {
    /// Its size in bytes, if upstream says.
    pub size: Option<u64>,
}

/// The bytes of a blob, or of a part of one. They are as upstream sent them: nothing here has hashed them.
pub struct BlobBody {
    /// Where in the blob the first byte lies. 0 although another start was asked for when upstream ignored the range.
    pub start: u64,
    /// The size of the whole blob in bytes, if upstream says.
    pub total: Option<u64>,
    /// How many bytes this body has, if upstream says. It may end before the end that was asked for.
    pub length: Option<u64>,
    /// A strong `ETag`, to send as `if_range` when the rest is fetched later.
    pub validator: Option<String>,
    /// The bytes. A body that is shorter than `length` ends with an error.
    pub stream: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

impl fmt::Debug for BlobBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BlobBody")
            .field("start", &self.start)
            .field("total", &self.total)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// Asks whether upstream has a blob and how large it is. Where `HEAD` is refused, a `GET` of one byte tells.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        priority: Priority,
    ) -> Result<BlobHead, UpstreamError> {
        let head = self.ask_blob(Method::HEAD, repository, digest, Lane::Metadata);
        // Not every upstream cuts out the byte: what then comes is the whole blob, so it goes over a blob's lane.
        let mut byte = self.ask_blob(Method::GET, repository, digest, Lane::Blob);
        byte.headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-0"));
        let within = self.transport.config.answer_timeout;
        self.transport.call(priority, within, || self.try_head_blob(&head, &byte, digest)).await
    }

    /// Opens a blob from the byte `from` up to, not including, the byte `to`, or to its end. Retries end where the
    /// answer begins; a stream that breaks is the caller's to resume.
    ///
    /// `if_range`: the validator of the part that is here already. If the blob is another one now, all of it is sent.
    ///
    /// # Errors
    /// [`UpstreamError`]; `RangeNotSatisfiable` when the range is empty or begins behind the end.
    pub async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: u64,
        to: Option<u64>,
        if_range: Option<&str>,
        priority: Priority,
    ) -> Result<BlobBody, UpstreamError> {
        if to.is_some_and(|to| to <= from) {
            return Err(UpstreamError::RangeNotSatisfiable);
        }
        let mut ask = self.ask_blob(Method::GET, repository, digest, Lane::Blob);
        let window = (from > 0 || to.is_some()).then_some((from, to.map(|to| to - 1)));
        if let Some((first, last)) = window {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            ask.headers.insert(header::RANGE, value(&format!("bytes={first}-{last}"))?);
            if let Some(validator) = if_range {
                ask.headers.insert(header::IF_RANGE, value(validator)?);
            }
        }
        let within = self.transport.config.read_timeout;
        self.transport.call(priority, within, || self.try_open_blob(&ask, window)).await
    }

    fn ask_blob(&self, method: Method, repository: &RepositoryName, digest: &Digest, lane: Lane) -> Ask {
        let mut ask = self.ask(method, repository, &format!("blobs/{digest}"), lane);
        ask.headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        ask.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        ask
    }

    async fn try_head_blob(&self, head: &Ask, byte: &Ask, digest: &Digest) -> Result<BlobHead, Failure> {
        let answer = self.transport.send(head).await?;
        refuse_web_page(&answer, digest)?;
        match answer.status() {
            StatusCode::OK => return Ok(BlobHead { size: whole_length(answer.headers()) }),
            _ if refuses_head(&answer) => {}
            _ => return Err(answer.failure()),
        }
        let answer = self.transport.send(byte).await?;
        refuse_web_page(&answer, digest)?;
        match answer.status() {
            StatusCode::OK => Ok(BlobHead { size: whole_length(answer.headers()) }),
            StatusCode::PARTIAL_CONTENT => {
                Ok(BlobHead { size: ContentRange::read(answer.headers()).and_then(|range| range.total) })
            }
            // A blob without bytes has no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => match ContentRange::read(answer.headers()) {
                Some(ContentRange { total: Some(0), .. }) => Ok(BlobHead { size: Some(0) }),
                _ => Err(answer.failure()),
            },
            _ => Err(answer.failure()),
        }
    }

    async fn try_open_blob(
        &self,
        ask: &Ask,
        window: Option<(u64, Option<u64>)>,
    ) -> Result<BlobBody, Failure> {
        let answer = self.transport.send(ask).await?;
        let (start, total, length) = match (answer.status(), window) {
            (StatusCode::OK, _) => {
                let length = content_length(answer.headers());
                (0, length, length)
            }
            (StatusCode::PARTIAL_CONTENT, Some((first, last))) => {
                match ContentRange::read(answer.headers()) {
                    Some(ContentRange { window: Some((start, end)), total })
                        if start == first && last.is_none_or(|last| end <= last) =>
                    {
                        (start, total, Some(end - start + 1))
                    }
                    _ => return Err(Failure::bad_answer("another range than the one asked for")),
                }
            }
            (StatusCode::PARTIAL_CONTENT, None) => {
                return Err(Failure::bad_answer("a part where all was asked for"));
            }
            _ => return Err(answer.failure()),
        };
        let validator = validator(answer.headers());
        let stream = pieces(Arc::clone(&self.transport), answer.response, length);
        Ok(BlobBody { start, total, length, validator, stream })
    }
}

/// A success that is a web page says nothing of the blob, unless it names it: a blob may be a web page, too.
fn refuse_web_page(answer: &Answer, digest: &Digest) -> Result<(), Failure> {
    let named = declared_digest(answer.headers()).is_some_and(|declared| declared == *digest);
    if answer.status().is_success() && is_web_page(answer.headers()) && !named {
        return Err(Failure::bad_answer("a web page where a blob was expected"));
    }
    Ok(())
}

/// A `HEAD` that says nothing of the blob: the method is refused, or it led to a link that is signed for `GET` only.
fn refuses_head(answer: &Answer) -> bool {
    match answer.status() {
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => true,
        StatusCode::FORBIDDEN => !answer.at_home,
        _ => false,
    }
}

/// The length of the blob, where it is not that of an encoded form.
fn whole_length(headers: &HeaderMap) -> Option<u64> {
    let plain = headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    plain.then(|| content_length(headers))?
}

fn validator(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(header::ETAG)?.to_str().ok()?;
    (tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"')).then(|| tag.to_owned())
}

fn value(text: &str) -> Result<HeaderValue, UpstreamError> {
    HeaderValue::try_from(text)
        .map_err(|_| UpstreamError::BadAnswer("a validator that is no header value".to_owned()))
}
