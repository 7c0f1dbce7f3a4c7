//! What came of one request to the object store.

use std::error::Error;

use crate::StoreError;

/// Why a request to the object store came to nothing.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// It says that there is no such object, upload or bucket.
    NotFound(String),
    /// It refused, and would again.
    Refused(String),
    /// It did not answer, or could not do it just now.
    Away(String),
}

/// No answer in the time that was given.
pub(super) const TOO_LATE: &str = "no answer in time";

impl Failure {
    pub(super) fn too_late() -> Self {
        Self::Away(TOO_LATE.to_owned())
    }

    /// Turns it into the error that says what was being done, and to which object.
    pub(super) fn during(self, action: &'static str, key: &str) -> StoreError {
        let (Self::NotFound(reason) | Self::Refused(reason) | Self::Away(reason)) = self;
        StoreError::Unavailable { action, key: key.to_owned(), reason }
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        let text = error.to_string();
        let reason = reason(&error, &text);
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound(reason),
            object_store::Error::Generic { .. } if !is_refusal(&text) => Self::Away(reason),
            _ => Self::Refused(reason),
        }
    }
}

/// A status of 400 to 499, but for those that ask to come back later.
fn is_refusal(text: &str) -> bool {
    status(text).is_some_and(|status| (400..500).contains(&status) && status != 408 && status != 429)
}

fn status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// Code and status where it answered, else what broke. The answer's body is left out: it may name keys.
fn reason(error: &object_store::Error, text: &str) -> String {
    let code =
        text.split_once("<Code>").and_then(|(_, after)| after.split_once("</Code>")).map(|(code, _)| code);
    match (status(text), code) {
        (Some(status), Some(code)) => format!("{status} {code}"),
        (Some(status), None) => format!("status {status}"),
        (None, Some(code)) => code.to_owned(),
        (None, None) => {
            let mut innermost: &dyn Error = error;
            while let Some(source) = innermost.source() {
                innermost = source;
            }
            innermost.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Failure {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }.into()
    }

    #[test]
    fn an_answer_is_told_by_status_and_code_and_nothing_else_of_it() {
        let body = "non-2xx status code: 403 Forbidden: <Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>KEY</AWSAccessKeyId></Error>";
        let failure = generic(body);
        assert!(
            matches!(&failure, Failure::Refused(reason) if reason == "403 InvalidAccessKeyId"),
            "{failure:?}"
        );
        let error = failure.during("read", "blobs/x").to_string();
        assert_eq!(error, "the object store could not read blobs/x: 403 InvalidAccessKeyId");
    }

    #[test]
    fn what_may_work_later_is_told_apart_from_a_refusal() {
        for text in ["status code: 503 Slow Down", "status code: 429", "connection refused"] {
            assert!(matches!(generic(text), Failure::Away(_)), "{text}");
        }
        assert!(matches!(generic("status code: 400 Bad Request"), Failure::Refused(_)));
    }
}
