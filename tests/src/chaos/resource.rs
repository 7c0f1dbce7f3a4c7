//! What is found for a request, before faults and ranges.

use super::body::Body;

/// Content with the headers that describe it; also an error, whose content is its message.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) status: u16,
    pub(super) content: Body,
    pub(super) content_type: String,
    pub(super) digest: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    /// Whether ranges of it are served.
    pub(super) ranges: bool,
}

impl Resource {
    pub(super) fn stored(content: Body, content_type: &str, digest: Option<&str>) -> Self {
        Self {
            status: 200,
            content,
            content_type: content_type.to_owned(),
            digest: digest.map(str::to_owned),
            etag: digest.map(|digest| format!("\"{digest}\"")),
            headers: Vec::new(),
            ranges: true,
        }
    }

    pub(super) fn json(status: u16, body: String) -> Self {
        Self {
            status,
            ranges: false,
            ..Self::stored(Body::from(bytes::Bytes::from(body)), "application/json", None)
        }
    }

    /// distribution-spec: "Error Codes".
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::json(status, body.to_string())
    }
}
