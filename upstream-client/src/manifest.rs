//! Manifests (distribution-spec: end-3).

use bytes::Bytes;
use oci_types::{Algorithm, Digest, MediaType, Reference, RepositoryName};

use crate::{
    Priority, Upstream, UpstreamError,
    error::AttemptError,
    request::{RequestKind, UpstreamRequest},
    verdict::{Content, Verdict},
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
    /// [`UpstreamError`]; `DigestMismatch` when upstream names another digest than the one asked for.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        priority: Priority,
    ) -> Result<ManifestHead, UpstreamError> {
        let kind = RequestKind::HeadManifest(reference.clone());
        let request = self.request(kind, repository, &format!("manifests/{reference}"));
        let within = self.transport.config.answer_timeout;
        self.transport.call(priority, within, || self.try_head_manifest(&request)).await
    }

    /// Fetches a manifest. Asked for by digest, the body hashes to that digest.
    ///
    /// # Errors
    /// [`UpstreamError`]; `DigestMismatch` also when the body does not hash to the `Docker-Content-Digest` it came with.
    pub async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        priority: Priority,
    ) -> Result<FetchedManifest, UpstreamError> {
        let request = self.request(RequestKind::GetManifest, repository, &format!("manifests/{reference}"));
        let within = self.transport.config.answer_timeout;
        self.transport.call(priority, within, || self.try_get_manifest(&request, reference)).await
    }

    async fn try_head_manifest(&self, request: &UpstreamRequest) -> Result<ManifestHead, AttemptError> {
        let answer = self.transport.send(request).await?;
        if answer.verdict == Verdict::TryGet {
            return Ok(ManifestHead { digest: None, media_type: None, size: None });
        }
        let (Content { digest, media_type, size, .. }, _) = answer.content()?;
        Ok(ManifestHead { digest, media_type, size })
    }

    async fn try_get_manifest(
        &self,
        request: &UpstreamRequest,
        reference: &Reference,
    ) -> Result<FetchedManifest, AttemptError> {
        let (content, response) = self.transport.send(request).await?.content()?;
        let body = self.transport.read_all(response, self.transport.config.max_manifest_bytes).await?;
        if body.is_empty() {
            return Err(UpstreamError::invalid_response("empty manifest").into());
        }
        let (algorithm, asked) = match reference {
            Reference::Digest(digest) => (digest.algorithm(), Some(digest)),
            Reference::Tag(_) => (Algorithm::Sha256, None),
        };
        let digest = Digest::of(algorithm, &body);
        let as_declared = |declared: &Digest| *declared == digest || declared.matches(&body);
        if asked.is_some_and(|asked| *asked != digest) || !content.digest.as_ref().is_none_or(as_declared) {
            return Err(UpstreamError::DigestMismatch.into());
        }
        Ok(FetchedManifest { digest, media_type: content.media_type, body })
    }
}
