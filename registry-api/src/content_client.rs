//! Asks a content node to fill a blob, over its internal API.

use std::{sync::Arc, time::Duration};

use internal_api::content_link::LinkKeys;
use oci_types::{Digest, Millis};
use reqwest::StatusCode;
use serde::Deserialize;

/// The header with the signature of an internal request.
const SIGNATURE: &str = "Tidegate-Signature";

/// How long one ask waits at the node before it tells how far the fill is.
const WAIT_SECONDS: u64 = 20;

/// How much longer than that an answer may take.
const SLACK: Duration = Duration::from_secs(10);

/// Why a blob is not stored yet.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FillRefused {
    /// The node did not answer, or not as it should.
    #[error("the content node did not answer: {0}")]
    Node(String),
    /// The node could not fill the blob.
    #[error("the blob could not be filled: {error}")]
    Failed {
        error: String,
        /// When it makes sense to ask again, where that is known.
        retry_after: Option<Duration>,
    },
}

#[derive(Deserialize)]
struct FillState {
    state: String,
    error: Option<String>,
    retry_after: Option<u64>,
}

/// A client of every content node.
pub(crate) struct ContentClient {
    http: reqwest::Client,
    keys: Arc<LinkKeys>,
}

impl ContentClient {
    pub(crate) fn new(keys: Arc<LinkKeys>) -> Result<Self, reqwest::Error> {
        let limit = Duration::from_secs(WAIT_SECONDS) + SLACK;
        let http = reqwest::Client::builder()
            .timeout(limit)
            .connect_timeout(Duration::from_secs(3))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, keys })
    }

    /// Has the node at `base` fill a blob, and waits for a while. True when the blob is stored, false while it is filled.
    pub(crate) async fn fill(&self, base: &str, digest: &Digest) -> Result<bool, FillRefused> {
        let path = format!("/internal/v1/fills/{digest}?wait={WAIT_SECONDS}");
        let signature = self.keys.sign_internal("POST", &path, Millis::now());
        let broken = |error: reqwest::Error| FillRefused::Node(error.without_url().to_string());
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let answer = self.http.post(url).header(SIGNATURE, signature).send().await.map_err(broken)?;
        if !matches!(answer.status(), StatusCode::OK | StatusCode::ACCEPTED) {
            return Err(FillRefused::Node(format!("status {}", answer.status().as_u16())));
        }
        let body = answer.bytes().await.map_err(broken)?;
        let state: FillState =
            serde_json::from_slice(&body).map_err(|error| FillRefused::Node(error.to_string()))?;
        match state.state.as_str() {
            "stored" => Ok(true),
            "running" => Ok(false),
            _ => Err(FillRefused::Failed {
                error: state.error.unwrap_or_default(),
                retry_after: state.retry_after.map(Duration::from_secs),
            }),
        }
    }
}
