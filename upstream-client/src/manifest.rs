//! Manifests (distribution-spec: end-3).

use bytes::Bytes;
use oci_types::{Algorithm, Digest, MediaType, Reference, RepositoryName};

use crate::{
    Priority, Upstream, UpstreamError,
    admission::MemoryPermit,
    error::AttemptError,
    request::{RequestKind, UpstreamRequest},
    verdict::{Content, Verdict},
};

/// The description of a manifest in the response to a `HEAD`. Registries omit headers; all fields are `None` for one that
/// refuses `HEAD` (405, 501).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// `Content-Length`, in bytes.
    pub size: Option<u64>,
}

/// A manifest, byte for byte as the upstream sent it.
#[derive(Debug)]
pub struct FetchedManifest {
    /// Digest of the body, with the algorithm of the requested digest, or SHA-256 for a tag.
    pub digest: Digest,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// The bytes, never decoded and encoded again.
    pub body: Bytes,
    /// The memory of the body, to be kept until the manifest is recorded.
    pub memory: MemoryPermit,
}

impl Upstream {
    /// Resolves a reference without fetching the manifest.
    ///
    /// # Errors
    /// [`UpstreamError`]; `DigestMismatch` when the upstream names another digest than the requested one.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        priority: Priority,
    ) -> Result<ManifestHead, UpstreamError> {
        let kind = RequestKind::HeadManifest(reference.clone());
        let request = self.request(kind, repository, &format!("manifests/{reference}"));
        let limits = self.transport.metadata_limits();
        self.transport.call(priority, limits, || self.try_head_manifest(&request)).await
    }

    /// Fetches a manifest and verifies it against the requested and the declared digest.
    ///
    /// # Errors
    /// [`UpstreamError`]; `DigestMismatch` when the body does not match the requested digest, or the
    /// `Docker-Content-Digest` of the response.
    pub async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        priority: Priority,
    ) -> Result<FetchedManifest, UpstreamError> {
        let request = self.request(RequestKind::GetManifest, repository, &format!("manifests/{reference}"));
        let limits = self.transport.metadata_limits();
        self.transport.call(priority, limits, || self.try_get_manifest(&request, reference)).await
    }

    async fn try_head_manifest(&self, request: &UpstreamRequest) -> Result<ManifestHead, AttemptError> {
        let response = self.transport.send(request).await?;
        if response.verdict == Verdict::TryGet {
            return Ok(ManifestHead { digest: None, media_type: None, size: None });
        }
        let (Content { digest, media_type, size, .. }, _) = response.content()?;
        Ok(ManifestHead { digest, media_type, size })
    }

    async fn try_get_manifest(
        &self,
        request: &UpstreamRequest,
        reference: &Reference,
    ) -> Result<FetchedManifest, AttemptError> {
        let (content, response) = self.transport.send(request).await?.content()?;
        let limit = self.transport.config.max_manifest_bytes;
        let (body, memory) = self.transport.read_body(response, limit).await?;
        if body.is_empty() {
            return Err(UpstreamError::invalid_response("empty manifest").into());
        }
        let digest = verified_digest(&body, reference, content.digest.as_ref())?;
        Ok(FetchedManifest { digest, media_type: content.media_type, body, memory })
    }
}

/// The digest of a manifest that matches the requested and the declared digest.
fn verified_digest(
    body: &[u8],
    reference: &Reference,
    declared: Option<&Digest>,
) -> Result<Digest, UpstreamError> {
    let (algorithm, requested) = match reference {
        Reference::Digest(digest) => (digest.algorithm(), Some(digest)),
        Reference::Tag(_) => (Algorithm::Sha256, None),
    };
    let digest = Digest::of(algorithm, body);
    let as_requested = requested.is_none_or(|requested| *requested == digest);
    let as_declared = declared.is_none_or(|declared| *declared == digest || declared.matches(body));
    if as_requested && as_declared { Ok(digest) } else { Err(UpstreamError::DigestMismatch) }
}
