//! The referrers of a manifest (distribution-spec: end-12a, and "Referrers Tag Schema").

use oci_types::{Digest, Reference, RepositoryName, referrer::Referrer};
use url::Url;

use crate::{
    MemoryPermit, Priority, Upstream, UpstreamError,
    error::AttemptError,
    next_page::next_page,
    request::{RequestKind, UpstreamRequest},
};

/// Maximum size of all pages of a list in bytes: that of an index.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Maximum number of pages of a list.
const MAX_PAGES: usize = 100;

struct Page {
    referrers: Vec<Referrer>,
    bytes: usize,
    next: Option<Url>,
    memory: MemoryPermit,
}

impl Upstream {
    /// Lists the referrers of a manifest, without a filter: from the referrers API, or from the index at the referrers tag
    /// where the upstream does not have the API. Empty if there are none.
    ///
    /// # Errors
    /// [`UpstreamError`]; `TooLarge` when the list exceeds a limit.
    pub async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        priority: Priority,
    ) -> Result<Vec<Referrer>, UpstreamError> {
        let error = match self.referrers_of_api(repository, subject, priority).await {
            Err(error) if may_lack_the_api(&error) => error,
            result => return result,
        };
        let Some(tag) = Referrer::tag(subject) else { return Err(error) };
        match self.get_manifest(repository, &Reference::Tag(tag), priority).await {
            // Any other manifest under this tag is not a list of referrers.
            Ok(manifest) => Ok(Referrer::parse_index(&manifest.body).unwrap_or_default()),
            Err(UpstreamError::NotFound) if is_lack_of_the_api(&error) => Ok(Vec::new()),
            Err(UpstreamError::NotFound) => Err(error),
            Err(error) => Err(error),
        }
    }

    async fn referrers_of_api(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        priority: Priority,
    ) -> Result<Vec<Referrer>, UpstreamError> {
        let limits = self.transport.metadata_limits();
        let path = format!("referrers/{subject}");
        let mut request = self.request(RequestKind::ListReferrers, repository, &path);
        let (mut referrers, mut bytes, mut memory) = (Vec::new(), 0, Vec::new());
        for _ in 0..MAX_PAGES {
            let page =
                self.transport.call(priority, limits, || self.try_list_referrers(&request, bytes)).await?;
            bytes += page.bytes;
            referrers.extend(page.referrers);
            memory.push(page.memory);
            match page.next {
                None => return Ok(referrers),
                Some(next) => {
                    request = UpstreamRequest::new(RequestKind::ListReferrers, next, request.scope.clone());
                }
            }
        }
        Err(UpstreamError::TooLarge)
    }

    async fn try_list_referrers(
        &self,
        request: &UpstreamRequest,
        received: usize,
    ) -> Result<Page, AttemptError> {
        let (_, response) = self.transport.send(request).await?.content()?;
        let next = next_page(&request.url, response.headers())?;
        let (body, memory) = self.transport.read_body(response, MAX_BYTES.saturating_sub(received)).await?;
        let referrers = Referrer::parse_index(&body)
            .ok_or_else(|| UpstreamError::invalid_response("no image index as the list of referrers"))?;
        Ok(Page { referrers, bytes: body.len(), next, memory })
    }
}

/// Whether an upstream without the API, or a proxy before it, may answer so.
fn may_lack_the_api(error: &UpstreamError) -> bool {
    is_lack_of_the_api(error)
        || matches!(
            error,
            UpstreamError::Denied
                | UpstreamError::LoginRequired
                | UpstreamError::Server { status: 500 | 501 }
        )
}

/// Whether an upstream answers so only if it does not have the API, or no referrers.
fn is_lack_of_the_api(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::NotFound | UpstreamError::InvalidResponse(_))
}
