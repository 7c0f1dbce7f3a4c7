//! What a request must prove before it is answered.

use actix_web::HttpRequest;
use internal_api::{LinkKeys, SignatureError, signed_request::SIGNATURE_HEADER};
use oci_types::{Digest, Millis, RepositoryName};

use super::header_text;

/// What a request must prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// registry-api signed the path and query: a content link.
    ContentLink,
    /// A process with a link key signed the request.
    SignedRequest,
}

/// A verified request. Created only by [`Proof::verify`].
#[derive(Debug)]
pub(crate) struct Verified {
    digest: Option<Digest>,
    repository: Option<RepositoryName>,
}

impl Proof {
    /// Verifies a request.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub(crate) fn verify(self, request: &HttpRequest, keys: &LinkKeys) -> Result<Verified, SignatureError> {
        let part = |name| request.match_info().get(name).unwrap_or_default();
        let (repository, digest) = match self {
            Self::ContentLink => {
                let (repository, digest) = (part("repository"), part("digest"));
                let (repository, digest) =
                    keys.verify(repository, digest, request.query_string(), Millis::now())?;
                (Some(repository), Some(digest))
            }
            Self::SignedRequest => {
                let header = header_text(request, SIGNATURE_HEADER).unwrap_or_default();
                let path = request.uri().path_and_query().map_or("", |path| path.as_str());
                keys.verify_request(request.method().as_str(), path, header, Millis::now())?;
                (None, Digest::parse(part("digest")).ok())
            }
        };
        Ok(Verified { digest, repository })
    }
}

impl Verified {
    /// The repository in a content link, as clients call it.
    pub(crate) fn repository(&self) -> Option<&RepositoryName> {
        self.repository.as_ref()
    }

    /// The digest in the path, where it has a valid one.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}
