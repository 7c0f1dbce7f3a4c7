//! The identity of a request in logs: its id, and the trace that it belongs to.

use std::{fmt, rc::Rc};

use actix_web::{
    HttpMessage as _, HttpRequest,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};

/// The id of a request. Proxies and clients may set it; the response repeats it.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The trace of a request (W3C Trace Context). The response repeats it.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The maximum length of an id that a client sets, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Identifies a request in logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Rc<str>);

impl RequestId {
    /// The id in the headers; a random one without a valid id.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Self {
        let is_valid = |id: &&str| {
            (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let stated = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_valid);
        stated.map_or_else(Self::random, |id| Self(id.into()))
    }

    /// The id of a request.
    pub fn of(request: &HttpRequest) -> Self {
        let known = request.extensions().get::<Self>().cloned();
        known.unwrap_or_else(|| Self::of_headers(request.headers()))
    }

    fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }

    /// The value of a header with the id.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The trace id in a `traceparent` header: `VERSION-TRACE_ID-PARENT_ID-FLAGS`, in lower-case hexadecimal digits.
pub(crate) fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let lengths = [2, 32, 16, 2];
    let parts = lengths.map(|length| {
        let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        parts.next().filter(|part| part.len() == length).filter(is_hex)
    });
    match parts {
        [Some(_), Some(trace_id), Some(_), Some(_)] if trace_id.bytes().any(|byte| byte != b'0') => {
            Some(trace_id)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_id_is_kept_and_any_other_one_replaced() {
        let id = |value: &[u8]| {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap())]);
            RequestId::of_headers(&headers).to_string()
        };
        assert_eq!(id(b"a-1.b/2"), "a-1.b/2");
        for invalid in [&b""[..], b"a b", b"\xff", &[b'a'; 129]] {
            assert_eq!(id(invalid).len(), 16, "{invalid:?}");
        }
        assert_ne!(RequestId::random(), RequestId::random());
    }

    #[test]
    fn a_trace_id_is_read_from_a_valid_traceparent() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{trace}-00f067aa0ba902b7-01")), Some(trace));
        for invalid in [
            String::new(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}0-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(trace_id(&invalid), None, "{invalid}");
        }
    }
}
