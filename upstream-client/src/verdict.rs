//! What one response of an upstream proves.
//!
//! [`verdict`] is the one table of these rules. It is pure: transport, circuit breaker and retry loop only act on the
//! verdict.

mod content;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use circuit_breaker::Outcome;
use http::{HeaderMap, StatusCode};
use oci_types::Reference;
use url::Url;

pub(crate) use self::content::{Content, content_length};
use crate::{
    UpstreamError,
    challenge::{self, Challenge, Unanswerable},
    error::{AttemptError, host_and_port},
    redirect::{self, same_origin},
    request::RequestKind,
    retry_after::retry_after,
    token_realms::TokenRealms,
};

/// What is known of a response when its headers have arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) request: &'a RequestKind,
    pub(crate) hop: Hop<'a>,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) grant: GrantInHand,
    /// Whether credentials are configured.
    pub(crate) has_credentials: bool,
    pub(crate) realms: &'a TokenRealms,
    /// Whether a `HEAD` for content of this kind has succeeded at this upstream.
    pub(crate) head_works: bool,
    /// Time of the response, to which a date in `Retry-After` is compared.
    pub(crate) now: SystemTime,
}

/// The exchange of a request that was redirected zero or more times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hop<'a> {
    pub(crate) url: &'a Url,
    pub(crate) host: HopHost,
    /// Redirects that were followed to `url`.
    pub(crate) redirects: usize,
}

/// The host that sent a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HopHost {
    /// The upstream itself: scheme, host and port are those of its URL.
    Upstream,
    /// A host that the upstream redirected to, or its token service.
    Other,
}

/// The authorization that an exchange is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrantInHand {
    None,
    /// A token from the cache.
    Token,
    /// The login itself, from the cache.
    Login,
    /// A grant that this request's own challenge was answered with.
    Renewed,
}

/// What a response proves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The response contains the content, or describes it.
    Has(Content),
    /// The content does not exist.
    Lacks,
    /// Access is denied, whatever authorization is sent.
    Refused,
    /// Access is denied, and no login is configured for the one that is required.
    LoginRequired,
    /// The grant from the cache is not accepted: the request is to be repeated without it.
    DropGrant,
    /// Authorization is missing or no longer accepted: the request is to be repeated with the grant that answers this
    /// challenge.
    Renew(Challenge),
    /// Authorization is missing, and the response does not say which: the upstream says it at `/v2/`.
    AskChallenge,
    /// `HEAD` proves nothing: the request is to be repeated with `GET`.
    TryGet,
    /// The request is to be repeated at this URL.
    Redirect(Url),
    /// The host that the upstream redirected to refuses the link: the upstream is to be asked for another one.
    LinkRefused {
        /// Host and port.
        host: String,
        status: u16,
    },
    /// The rate limit is reached.
    Limited {
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The range begins behind the end of the blob.
    RangeNotSatisfiable,
    /// The upstream failed.
    Unavailable {
        status: u16,
        /// Whether an immediate retry may succeed.
        retryable: bool,
    },
    /// The response names another digest than the requested one.
    DigestMismatch,
    /// The protocol does not define the status.
    UnexpectedStatus(u16),
    /// The response is outside the protocol, or refers to what is not permitted.
    Invalid(String),
}

/// What a response proves about the requested content.
pub(crate) fn verdict(facts: &Facts<'_>) -> Verdict {
    let verdict = of_response(facts);
    if is_refusal_of_head(facts, &verdict) { Verdict::TryGet } else { verdict }
}

/// Whether the response to a `HEAD` is one that a `GET` may not get. Some registries, and links that are signed for `GET`,
/// refuse the method with any status. Where `HEAD` has succeeded once, an error of the upstream is meant.
fn is_refusal_of_head(facts: &Facts<'_>, verdict: &Verdict) -> bool {
    let status = facts.status.as_u16();
    match facts.request {
        request if !request.is_head() => false,
        RequestKind::HeadBlob(_) if status == 400 => true,
        _ if matches!(status, 405 | 501) => true,
        _ => {
            let is_error = match verdict {
                Verdict::Refused | Verdict::Lacks | Verdict::LinkRefused { .. } => true,
                Verdict::Invalid(_) | Verdict::UnexpectedStatus(_) => facts.status.is_client_error(),
                Verdict::Unavailable { status, .. } => *status == 500,
                _ => false,
            };
            is_error && (!facts.head_works || facts.hop.redirects > 0)
        }
    }
}

fn of_response(facts: &Facts<'_>) -> Verdict {
    use RequestKind::{
        GetBase, GetBlob, GetFirstByte, GetManifest, GetToken, HeadBlob, HeadManifest, ListReferrers,
        ListTags,
    };
    let Facts { request, hop, headers, .. } = facts;
    match (request, facts.status.as_u16()) {
        (_, 301 | 302 | 303 | 307 | 308) => redirected(request, hop, headers),

        (HeadManifest(_) | GetManifest, 200) if content::is_html(headers) => {
            Verdict::invalid("a web page (HTML) instead of a manifest")
        }
        (HeadManifest(Reference::Digest(digest)), 200) if content::contradicts(headers, digest) => {
            Verdict::DigestMismatch
        }
        (HeadManifest(_) | GetManifest, 200) => Verdict::Has(Content::manifest(headers)),

        // A blob may be a web page itself.
        (HeadBlob(digest) | GetFirstByte(digest), 200..=299)
            if content::is_html(headers) && !content::names(headers, digest) =>
        {
            Verdict::invalid("a web page (HTML) instead of a blob")
        }
        (HeadBlob(_) | GetFirstByte(_), 200) => Verdict::Has(Content::blob_size(headers)),
        (GetFirstByte(_), 206) => Verdict::Has(Content::blob_size_of_part(headers)),
        // An empty blob has no first byte.
        (GetFirstByte(_), 416) if content::is_empty_blob(headers) => Verdict::Has(Content::empty_blob()),

        (GetBlob(_), 200) => Verdict::Has(Content::blob(headers)),
        (GetBlob(Some(range)), 206) => match Content::blob_range(headers, *range) {
            Some(content) => Verdict::Has(content),
            None => Verdict::invalid("Content-Range does not match the requested range"),
        },
        (GetBlob(None), 206) => Verdict::invalid("partial content without a requested range"),

        (ListTags | ListReferrers | GetBase, 200) | (GetToken, 200..=299) => Verdict::Has(Content::default()),

        // A missing token service proves nothing about the content.
        (GetToken, status @ (404 | 410)) => {
            Verdict::Invalid(format!("status {status} from the token service"))
        }

        (GetToken, 401 | 403) => Verdict::Refused,
        (_, 401) => challenged(facts),
        (_, status @ (400 | 403 | 404 | 410)) if hop.redirects > 0 && !is_of_registry(facts) => {
            Verdict::LinkRefused { host: host_and_port(hop.url), status }
        }
        (_, 403) if facts.grant.is_cached() => Verdict::DropGrant,
        (_, 403) => Verdict::Refused,
        (_, 404 | 410) => Verdict::Lacks,
        (_, 416) => Verdict::RangeNotSatisfiable,
        (_, 429) => Verdict::Limited { retry_after: retry_after(headers, facts.now) },
        // A gateway that names a time states that an immediate retry fails.
        (_, status @ 502..=504) => {
            Verdict::Unavailable { status, retryable: retry_after(headers, facts.now).is_none() }
        }
        (_, status @ 500..=599) => Verdict::Unavailable { status, retryable: false },
        (_, status) => Verdict::UnexpectedStatus(status),
    }
}

/// Whether an error behind a redirect is that of a registry, which knows its content. The errors of object stores and content
/// delivery networks concern the link; blobs are redirected to these.
fn is_of_registry(facts: &Facts<'_>) -> bool {
    let is_blob = matches!(
        facts.request,
        RequestKind::HeadBlob(_) | RequestKind::GetFirstByte(_) | RequestKind::GetBlob(_)
    );
    content::is_json(facts.headers) && (facts.hop.host == HopHost::Upstream || !is_blob)
}

fn redirected(request: &RequestKind, hop: &Hop<'_>, headers: &HeaderMap) -> Verdict {
    match redirect::next(hop.url, headers) {
        Err(reason) => Verdict::invalid(reason),
        // The request contains the login.
        Ok(url) if *request == RequestKind::GetToken && !same_origin(hop.url, &url) => {
            Verdict::invalid("redirect by the token service to another host")
        }
        Ok(_) if hop.redirects >= redirect::MAX_REDIRECTS => {
            Verdict::Invalid(format!("more than {} redirects", redirect::MAX_REDIRECTS))
        }
        Ok(url) => Verdict::Redirect(url),
    }
}

fn challenged(facts: &Facts<'_>) -> Verdict {
    let Facts { hop, headers, grant, realms, .. } = facts;
    if *grant == GrantInHand::Renewed {
        return Verdict::Refused;
    }
    if hop.host == HopHost::Other {
        // A registry that the upstream redirected to. The operator has listed its token service.
        let check = |realm: &Url| realms.check_listed(realm);
        return match challenge::choose(headers, false, check) {
            Ok(challenge) => Verdict::Renew(challenge),
            Err(_) if is_of_registry(facts) => Verdict::Refused,
            Err(_) => Verdict::LinkRefused { host: host_and_port(hop.url), status: 401 },
        };
    }
    match challenge::choose(headers, facts.has_credentials, |realm| realms.check(realm)) {
        Ok(challenge) => Verdict::Renew(challenge),
        Err(Unanswerable::Absent) if grant.is_cached() => Verdict::DropGrant,
        Err(Unanswerable::Absent) if *facts.request != RequestKind::GetBase => Verdict::AskChallenge,
        Err(Unanswerable::Absent) => Verdict::Refused,
        Err(Unanswerable::NoCredentials) => Verdict::LoginRequired,
        Err(Unanswerable::Invalid(reason)) => Verdict::Invalid(reason),
    }
}

impl GrantInHand {
    fn is_cached(self) -> bool {
        matches!(self, Self::Token | Self::Login)
    }
}

/// The outcome that the circuit breaker records for a call whose last exchange was with `host`. Only what concerns
/// every request to the upstream is a failure of it: a connection that fails, a timeout, and a gateway that is
/// unavailable. Other statuses may concern one repository, and other hosts one blob; they prove that the upstream answers.
/// The refusal of a proxy proves nothing of the upstream: `None`.
pub(crate) fn outcome<T>(result: &Result<T, UpstreamError>, host: HopHost) -> Option<Outcome> {
    Some(match result {
        Err(UpstreamError::ProxyRefused { .. }) => return None,
        Err(
            UpstreamError::Timeout
            | UpstreamError::Unreachable(_)
            | UpstreamError::Server { status: 503 | 504 },
        ) if host == HopHost::Upstream => Outcome::Failure,
        _ => Outcome::Success,
    })
}

impl Verdict {
    fn invalid(reason: &str) -> Self {
        Self::Invalid(reason.to_owned())
    }

    /// The content, where this verdict ends the request with it.
    ///
    /// # Errors
    /// The error that any other verdict ends the request with.
    pub(crate) fn content(self) -> Result<Content, AttemptError> {
        let error = match self {
            Self::Has(content) => return Ok(content),
            Self::Lacks => UpstreamError::NotFound,
            Self::Refused => UpstreamError::Denied,
            Self::LoginRequired => UpstreamError::LoginRequired,
            Self::LinkRefused { host, status } => {
                let error = match status {
                    401 | 403 => UpstreamError::Denied,
                    404 | 410 => UpstreamError::NotFound,
                    _ => UpstreamError::invalid_response(format!("status {status} from {host}")),
                };
                return Err(AttemptError { error, retryable: true });
            }
            Self::Limited { retry_after } => UpstreamError::RateLimited { retry_after },
            Self::RangeNotSatisfiable => UpstreamError::RangeNotSatisfiable,
            Self::Unavailable { status, retryable } => {
                return Err(AttemptError { error: UpstreamError::Server { status }, retryable });
            }
            Self::DigestMismatch => UpstreamError::DigestMismatch,
            Self::Invalid(reason) => UpstreamError::invalid_response(reason),
            Self::UnexpectedStatus(status) => UpstreamError::unexpected_status(status),
            Self::Renew(_) | Self::AskChallenge | Self::DropGrant | Self::TryGet | Self::Redirect(_) => {
                UpstreamError::invalid_response("unexpected response")
            }
        };
        Err(error.into())
    }
}
