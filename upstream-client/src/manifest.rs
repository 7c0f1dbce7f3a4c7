//! Manifests (distribution-spec: end-3).

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use oci_types::{Algorithm, Digest, MediaType, Reference, RepositoryName, media_type::MANIFEST_TYPES};

use crate::{
    Priority, Upstream, UpstreamError,
    dial::Lane,
    error::Failure,
    transport::{Ask, content_length},
};

/// What a `HEAD` of a manifest says. Each part may be missing: not every registry sends it, and one that does not
/// answer `HEAD` at all (405, 501) leaves them all out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// `Content-Length`, in bytes.
    pub size: Option<u64>,
}

/// A manifest exactly as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Computed over the body, with the algorithm of the digest that was asked for, else SHA-256.
    pub digest: Digest,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// Never decoded or encoded again.
    pub body: Bytes,
}

impl Upstream {
    /// Asks which manifest a reference names, without fetching it.
    ///
    /// # Errors
    /// [`UpstreamError`]; `WrongDigest` when upstream names another digest than the one asked for.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        priority: Priority,
    ) -> Result<ManifestHead, UpstreamError> {
        let ask = self.ask_manifest(Method::HEAD, repository, reference);
        let within = self.transport.config.answer_timeout;
        self.transport.call(priority, within, || self.try_head_manifest(&ask, reference)).await
    }

    /// Fetches a manifest. Asked for by digest, the body hashes to that digest.
    ///
    /// # Errors
    /// [`UpstreamError`]; `WrongDigest` also when the body does not hash to the `Docker-Content-Digest` it came with.
    pub async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        priority: Priority,
    ) -> Result<FetchedManifest, UpstreamError> {
        let ask = self.ask_manifest(Method::GET, repository, reference);
        let within = self.transport.config.answer_timeout;
        self.transport.call(priority, within, || self.try_get_manifest(&ask, reference)).await
    }

    fn ask_manifest(&self, method: Method, repository: &RepositoryName, reference: &Reference) -> Ask {
        let mut ask = self.ask(method, repository, &format!("manifests/{reference}"), Lane::Metadata);
        ask.headers.insert(header::ACCEPT, ACCEPT.clone());
        ask.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        ask
    }

    async fn try_head_manifest(&self, ask: &Ask, reference: &Reference) -> Result<ManifestHead, Failure> {
        let answer = self.transport.send(ask).await?;
        match answer.status() {
            StatusCode::OK => {
                let media_type = media_type(answer.headers())?;
                let digest = declared_digest(answer.headers());
                if let (Reference::Digest(asked), Some(told)) = (reference, &digest)
                    && asked.algorithm() == told.algorithm()
                    && asked != told
                {
                    return Err(UpstreamError::WrongDigest.into());
                }
                Ok(ManifestHead { digest, media_type, size: content_length(answer.headers()) })
            }
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                Ok(ManifestHead { digest: None, media_type: None, size: None })
            }
            _ => Err(answer.failure()),
        }
    }

    async fn try_get_manifest(&self, ask: &Ask, reference: &Reference) -> Result<FetchedManifest, Failure> {
        let answer = self.transport.send(ask).await?;
        if answer.status() != StatusCode::OK {
            return Err(answer.failure());
        }
        let media_type = media_type(answer.headers())?;
        let declared = declared_digest(answer.headers());
        let body = self.transport.read_all(answer.response, self.transport.config.max_manifest_bytes).await?;
        if body.is_empty() {
            return Err(Failure::bad_answer("an empty manifest"));
        }
        let (algorithm, asked) = match reference {
            Reference::Digest(digest) => (digest.algorithm(), Some(digest)),
            Reference::Tag(_) => (Algorithm::Sha256, None),
        };
        let digest = Digest::of(algorithm, &body);
        let as_declared = |declared: &Digest| *declared == digest || declared.matches(&body);
        if asked.is_some_and(|asked| *asked != digest) || !declared.as_ref().is_none_or(as_declared) {
            return Err(UpstreamError::WrongDigest.into());
        }
        Ok(FetchedManifest { digest, media_type, body })
    }
}

static ACCEPT: LazyLock<HeaderValue> = LazyLock::new(|| {
    let any = HeaderValue::from_static("*/*");
    HeaderValue::try_from(MANIFEST_TYPES.join(", ")).unwrap_or(any)
});

/// The type of an answer.
fn media_type(headers: &HeaderMap) -> Result<Option<MediaType>, Failure> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if is_web_page(headers) {
        return Err(Failure::bad_answer("a web page where a manifest was expected"));
    }
    Ok(text.map(MediaType::new).filter(|media_type| !media_type.as_str().is_empty()))
}

/// HTML is what something answers that is no registry: a login page, the portal of a network.
pub(crate) fn is_web_page(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = text.map(MediaType::new);
    media_type.is_some_and(|html| matches!(html.as_str(), "text/html" | "application/xhtml+xml"))
}

/// A header that is no digest says nothing.
pub(crate) fn declared_digest(headers: &HeaderMap) -> Option<Digest> {
    Digest::parse(headers.get("docker-content-digest")?.to_str().ok()?.trim()).ok()
}
