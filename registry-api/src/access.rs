//! Who requests what: the one check that every route passes.

use http_server::RequestId;

use crate::{error::ApiError, resolve::Target};

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// A client without credentials.
    Anonymous,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Find out whether the API is served.
    Ping,
    /// List the repositories.
    ListRepositories,
    /// Read a manifest or a blob.
    Pull,
    /// List the tags of a repository.
    ListTags,
    /// Read the state of upstreams.
    ReadUpstreams,
    /// Read the state of jobs.
    ReadJobs,
}

/// What authorization depends on.
#[derive(Clone)]
pub(crate) struct RequestContext<'a> {
    pub(crate) principal: Principal,
    pub(crate) action: Action,
    /// The repository, where the action has one.
    pub(crate) repository: Option<&'a Target>,
    pub(crate) request_id: RequestId,
}

/// The check of a request, before anything is read or pulled for it.
///
/// # Errors
/// [`ApiError::Forbidden`].
pub(crate) type Authorize = fn(&RequestContext<'_>) -> Result<(), ApiError>;

/// Allows every action to everyone.
pub(crate) fn authorize(context: &RequestContext<'_>) -> Result<(), ApiError> {
    let RequestContext { principal, action, repository, request_id } = context;
    let repository = repository.map(|target| target.repository.as_str());
    tracing::trace!(?principal, ?action, repository, %request_id, "request authorized");
    Ok(())
}
