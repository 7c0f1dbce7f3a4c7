//! Classification of failed requests to the object store.

use std::{error::Error, fmt, iter, sync::Arc};

use object_store::client::HttpError;

/// A request to the object store that failed.
///
/// The text is the status and the error code of the response, or the cause of the transport
/// failure. It contains nothing else from the response, which may include key ids and signatures.
#[derive(Debug, Clone)]
pub struct RequestError {
    kind: RequestErrorKind,
    reason: String,
    cause: Option<Arc<object_store::Error>>,
}

/// What a failed request means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestErrorKind {
    /// The object, the upload or the bucket does not exist.
    NotFound,
    /// The object store refused the request, and would refuse it again.
    Refused,
    /// The object store did not respond, or asks to retry later.
    Unavailable,
}

impl RequestError {
    /// Its classification.
    pub fn kind(&self) -> RequestErrorKind {
        self.kind
    }

    /// Whether a retry may succeed.
    pub(crate) fn is_retryable(&self) -> bool {
        self.kind == RequestErrorKind::Unavailable
    }

    pub(crate) fn timed_out() -> Self {
        Self::unavailable("no response within the timeout")
    }

    pub(crate) fn circuit_open() -> Self {
        Self::unavailable("circuit is open after repeated failures")
    }

    pub(crate) fn truncated() -> Self {
        Self::unavailable("the response ended early")
    }

    fn unavailable(reason: &str) -> Self {
        Self { kind: RequestErrorKind::Unavailable, reason: reason.to_owned(), cause: None }
    }
}

impl From<object_store::Error> for RequestError {
    fn from(error: object_store::Error) -> Self {
        let status = status(&error);
        let kind = match &error {
            object_store::Error::NotFound { .. } => RequestErrorKind::NotFound,
            // The client wraps the responses to lists.
            _ if status == Some(404) => RequestErrorKind::NotFound,
            object_store::Error::Generic { .. } if !status.is_some_and(is_refusal) => {
                RequestErrorKind::Unavailable
            }
            _ => RequestErrorKind::Refused,
        };
        Self { kind, reason: reason(&error, status), cause: Some(Arc::new(error)) }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)
    }
}

impl Error for RequestError {
    /// The failure of the transport; `None` if there was a response.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let error: &object_store::Error = self.cause.as_deref()?;
        chain(error).find(|error| error.is::<HttpError>())
    }
}

/// A status that a retry does not change (RFC 9110, section 15.5).
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && status != 408 && status != 429
}

/// The status of the response. The client has no accessor for it; a contract test compares it with a real server.
fn status(error: &object_store::Error) -> Option<u16> {
    chain(error).find_map(|error| {
        let text = error.to_string();
        text.strip_prefix("Server returned non-2xx status code: ")?.get(..3)?.parse().ok()
    })
}

fn reason(error: &object_store::Error, status: Option<u16>) -> String {
    let text = error.to_string();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    match (status, code) {
        (Some(status), Some((code, _))) => format!("{status} {code}"),
        (Some(status), None) => format!("status {status}"),
        (None, Some((code, _))) => code.to_owned(),
        (None, None) => chain(error).last().map_or(text, ToString::to_string),
    }
}

fn chain(error: &object_store::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    iter::successors(Some(first), |error: &&(dyn Error + 'static)| Error::source(*error))
}
