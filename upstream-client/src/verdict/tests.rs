//! The rules of [`verdict`] as tables: request, host, status, headers, grant → verdict.

use std::time::UNIX_EPOCH;

use oci_types::{Algorithm, Digest, MediaType};

use super::*;
use crate::{ProxyRefusal, challenge::BearerChallenge, request::ByteRange};

mod content;

const OTHER_DIGEST: &[u8] = b"other";
const BEARER: (&str, &str) = ("www-authenticate", r#"Bearer realm="https://registry.test/token""#);
const BASIC: (&str, &str) = ("www-authenticate", r#"Basic realm="registry""#);
const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

fn digest() -> Digest {
    Digest::sha256(b"blob")
}

fn head_manifest() -> RequestKind {
    RequestKind::HeadManifest(Reference::Digest(digest()))
}

fn head_blob() -> RequestKind {
    RequestKind::HeadBlob(digest())
}

fn get_first_byte() -> RequestKind {
    RequestKind::GetFirstByte(digest())
}

fn every_request() -> [RequestKind; 10] {
    [
        head_manifest(),
        RequestKind::GetManifest,
        head_blob(),
        get_first_byte(),
        RequestKind::GetBlob(None),
        RequestKind::GetBlob(Some(ByteRange { first: 4, last: Some(6) })),
        RequestKind::ListTags,
        RequestKind::ListReferrers,
        RequestKind::GetBase,
        RequestKind::GetToken,
    ]
}

/// The facts of a table's row that differ from the usual: sent by the upstream, no grant in hand, no credentials, `HEAD` has
/// succeeded.
#[derive(Clone, Copy)]
struct Row<'a> {
    host: HopHost,
    redirects: usize,
    grant: GrantInHand,
    has_credentials: bool,
    head_works: bool,
    headers: &'a [(&'static str, &'a str)],
}

const USUAL: Row<'static> = Row {
    host: HopHost::Upstream,
    redirects: 0,
    grant: GrantInHand::None,
    has_credentials: false,
    head_works: true,
    headers: &[],
};

fn with<'a>(headers: &'a [(&'static str, &'a str)]) -> Row<'a> {
    Row { headers, ..USUAL }
}

fn judge(request: &RequestKind, status: u16, row: Row<'_>) -> Verdict {
    let url = Url::parse("https://registry.test/v2/x").unwrap();
    let realms = TokenRealms::new(url.clone(), &["listed.example".to_owned()]).unwrap();
    let headers =
        row.headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    verdict(&Facts {
        request,
        hop: Hop { url: &url, host: row.host, redirects: row.redirects },
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers,
        grant: row.grant,
        has_credentials: row.has_credentials,
        realms: &realms,
        head_works: row.head_works,
        now: UNIX_EPOCH + Duration::from_secs(1_000_000_000),
    })
}

fn bearer() -> Verdict {
    bearer_of("https://registry.test/token")
}

fn bearer_of(realm: &str) -> Verdict {
    let realm = Url::parse(realm).unwrap();
    Verdict::Renew(Challenge::Bearer(BearerChallenge { realm, service: None, scope: None }))
}

fn blob_of_size(size: Option<u64>) -> Verdict {
    Verdict::Has(Content { size, ..Content::default() })
}

fn is_invalid(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Invalid(_) | Verdict::UnexpectedStatus(_))
}

fn is_blob(request: &RequestKind) -> bool {
    matches!(request, RequestKind::HeadBlob(_) | RequestKind::GetFirstByte(_) | RequestKind::GetBlob(_))
}

#[test]
fn a_status_of_the_upstream_means_the_same_for_every_request_unless_it_is_listed() {
    let unavailable = |status, retryable| Verdict::Unavailable { status, retryable };
    for request in every_request() {
        let judge = |status| judge(&request, status, USUAL);
        assert_eq!(judge(429), Verdict::Limited { retry_after: None });
        assert_eq!(judge(500), unavailable(500, false));
        for status in 502..=504 {
            assert_eq!(judge(status), unavailable(status, true));
        }
        assert_eq!(judge(418), Verdict::UnexpectedStatus(418));
        if !request.is_head() {
            assert_eq!(judge(405), Verdict::UnexpectedStatus(405));
            assert_eq!(judge(501), unavailable(501, false));
        }
        if head_blob() != request {
            assert_eq!(judge(400), Verdict::UnexpectedStatus(400));
        }
        assert_eq!(judge(403), Verdict::Refused);
        if RequestKind::GetToken != request {
            assert_eq!((judge(404), judge(410)), (Verdict::Lacks, Verdict::Lacks));
        }
        assert_eq!(judge(416), Verdict::RangeNotSatisfiable);
        assert!(is_invalid(&judge(304)), "{request:?}");
        if RequestKind::GetToken != request {
            assert!(is_invalid(&judge(204)), "{request:?}");
        }
    }
}

#[test]
fn a_refusal_behind_a_redirect_concerns_the_link_unless_a_registry_sends_it() {
    let json = [("content-type", "application/json; charset=utf-8")];
    let xml = [("content-type", "application/xml")];
    for request in every_request().into_iter().filter(|request| *request != RequestKind::GetToken) {
        for status in [400, 401, 403, 404, 410] {
            let row = Row { host: HopHost::Other, redirects: 1, ..USUAL };
            let judge = |headers| judge(&request, status, Row { headers, ..row });
            let refused = Verdict::LinkRefused { host: "registry.test".to_owned(), status };
            if request.is_head() {
                assert_eq!((judge(&xml), judge(&json)), (Verdict::TryGet, Verdict::TryGet));
                continue;
            }
            assert_eq!(judge(&xml), refused, "{request:?}");
            let expected = match status {
                _ if is_blob(&request) => refused,
                400 => Verdict::UnexpectedStatus(400),
                401 | 403 => Verdict::Refused,
                _ => Verdict::Lacks,
            };
            assert_eq!(judge(&json), expected, "{request:?} {status}");
        }
    }
    for (status, error) in [
        (400, UpstreamError::invalid_response("status 400 from cdn.test")),
        (403, UpstreamError::Denied),
        (404, UpstreamError::NotFound),
    ] {
        let refused = Verdict::LinkRefused { host: "cdn.test".to_owned(), status };
        assert_eq!(refused.content().unwrap_err(), AttemptError { error, retryable: true });
    }
}

#[test]
fn retry_after_limits_a_429_and_prevents_the_retry_of_a_gateway_error() {
    for request in every_request() {
        let limited = Verdict::Limited { retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(judge(&request, 429, with(&[("retry-after", "7")])), limited);
        let at = with(&[("retry-after", "Sun, 09 Sep 2001 01:46:47 GMT")]);
        assert_eq!(judge(&request, 429, at), limited);
        for status in 502..=504 {
            let verdict = judge(&request, status, with(&[("retry-after", "1")]));
            assert_eq!(verdict, Verdict::Unavailable { status, retryable: false });
        }
    }
}

#[test]
fn a_challenge_of_the_upstream_is_answered_once() {
    use GrantInHand::{Login, None, Renewed, Token};
    let refused = || Verdict::Refused;
    let basic = || Verdict::Renew(Challenge::Basic);
    for (challenge, has_credentials, grant, expected) in [
        (BEARER, false, None, bearer()),
        (BEARER, true, Token, bearer()),
        (BEARER, true, Login, bearer()),
        (BEARER, true, Renewed, refused()),
        (BASIC, false, None, Verdict::LoginRequired),
        (BASIC, true, None, basic()),
        (BASIC, true, Token, basic()),
        // The login may have been renewed meanwhile.
        (BASIC, true, Login, basic()),
        (BASIC, true, Renewed, refused()),
    ] {
        let row = Row { has_credentials, grant, ..with(&[]) };
        let headers = [challenge];
        for request in every_request() {
            let at_upstream = judge(&request, 401, Row { headers: &headers, ..row });
            if request == RequestKind::GetToken {
                assert_eq!(at_upstream, refused());
            } else {
                assert_eq!(at_upstream, expected, "{request:?} {challenge:?} {has_credentials} {grant:?}");
            }
        }
    }
    let unknown = [("www-authenticate", "Negotiate")];
    assert!(is_invalid(&judge(&head_blob(), 401, with(&unknown))));
}

#[test]
fn a_401_without_a_challenge_is_preceded_by_that_of_the_base() {
    use GrantInHand::{Login, None, Renewed, Token};
    for request in every_request().into_iter().filter(|request| *request != RequestKind::GetToken) {
        for (grant, expected) in [
            (None, Verdict::AskChallenge),
            (Token, Verdict::DropGrant),
            (Login, Verdict::DropGrant),
            (Renewed, Verdict::Refused),
        ] {
            let verdict = judge(&request, 401, Row { grant, ..USUAL });
            if request == RequestKind::GetBase && grant == None {
                assert_eq!(verdict, Verdict::Refused);
            } else {
                assert_eq!(verdict, expected, "{request:?} {grant:?}");
            }
        }
    }
}

#[test]
fn a_grant_from_the_cache_that_is_refused_is_dropped() {
    use GrantInHand::{Login, None, Renewed, Token};
    for request in every_request().into_iter().filter(|request| *request != RequestKind::GetToken) {
        for (grant, expected) in [
            (None, Verdict::Refused),
            (Token, Verdict::DropGrant),
            (Login, Verdict::DropGrant),
            (Renewed, Verdict::Refused),
        ] {
            assert_eq!(judge(&request, 403, Row { grant, ..USUAL }), expected, "{request:?} {grant:?}");
        }
    }
}

#[test]
fn a_challenge_behind_a_redirect_is_answered_where_its_realm_is_listed() {
    let judge = |header: (&'static str, &'static str)| {
        let row = Row { host: HopHost::Other, redirects: 1, has_credentials: true, ..USUAL };
        judge(&RequestKind::GetManifest, 401, Row { headers: &[header], ..row })
    };
    let listed = ("www-authenticate", r#"Bearer realm="https://listed.example/token""#);
    assert_eq!(judge(listed), bearer_of("https://listed.example/token"));
    // The realm of the upstream itself is for the upstream.
    for other in [BEARER, BASIC] {
        assert!(matches!(judge(other), Verdict::LinkRefused { status: 401, .. }), "{other:?}");
    }
}

#[test]
fn redirects_are_followed_up_to_a_limit_and_from_a_token_service_within_its_host() {
    let location = [("location", "/y")];
    for status in [301, 302, 303, 307, 308] {
        for request in every_request() {
            let judge = |row| judge(&request, status, row);
            let next = Url::parse("https://registry.test/y").unwrap();
            for host in [HopHost::Upstream, HopHost::Other] {
                let last = Row { host, redirects: redirect::MAX_REDIRECTS - 1, ..with(&location) };
                assert_eq!(judge(last), Verdict::Redirect(next.clone()), "{request:?}");
            }
            let elsewhere = judge(with(&[("location", "https://other.test/y")]));
            assert_eq!(is_invalid(&elsewhere), request == RequestKind::GetToken, "{request:?}");
            let one_more = Row { redirects: redirect::MAX_REDIRECTS, ..with(&location) };
            assert!(is_invalid(&judge(one_more)));
            assert!(is_invalid(&judge(with(&[]))));
            assert!(is_invalid(&judge(with(&[("location", "http://registry.test/y")]))));
        }
    }
    assert!(is_invalid(&judge(&RequestKind::GetManifest, 300, with(&location))));
}

#[test]
fn an_error_for_head_proves_nothing_until_one_has_succeeded() {
    for request in [head_manifest(), head_blob()] {
        let judge = |status, row| judge(&request, status, row);
        for status in [400, 401, 403, 404, 405, 406, 410, 500, 501] {
            let first = Row { head_works: false, grant: GrantInHand::Renewed, ..USUAL };
            assert_eq!(judge(status, first), Verdict::TryGet, "{request:?} {status}");
        }
        for status in [405, 501] {
            assert_eq!(judge(status, USUAL), Verdict::TryGet, "{request:?} {status}");
        }
        for (status, expected) in [(403, Verdict::Refused), (404, Verdict::Lacks)] {
            assert_eq!(judge(status, USUAL), expected, "{request:?}");
        }
        // The limits of the upstream and its gateways apply to `GET` alike.
        for status in [429, 502, 503, 504] {
            let first = Row { head_works: false, ..USUAL };
            assert_eq!(judge(status, first), judge(status, USUAL), "{request:?}");
            assert_ne!(judge(status, first), Verdict::TryGet);
        }
    }
    assert_eq!(judge(&head_blob(), 400, USUAL), Verdict::TryGet);
}

#[test]
fn lists_and_tokens_are_read_from_the_body() {
    for request in [RequestKind::ListTags, RequestKind::ListReferrers, RequestKind::GetToken] {
        assert_eq!(judge(&request, 200, with(&[HTML])), Verdict::Has(Content::default()));
    }
}

#[test]
fn a_missing_token_service_proves_nothing_about_the_content() {
    for status in [404, 410] {
        assert!(is_invalid(&judge(&RequestKind::GetToken, status, USUAL)));
    }
}

#[test]
fn only_failures_of_the_upstream_count_towards_opening_the_circuit() {
    use Outcome::{Failure, Success};
    for (error, expected) in [
        (UpstreamError::Timeout, Failure),
        (UpstreamError::unreachable("reset"), Failure),
        (UpstreamError::Server { status: 503 }, Failure),
        (UpstreamError::Server { status: 504 }, Failure),
        // These may concern one repository.
        (UpstreamError::Server { status: 500 }, Success),
        (UpstreamError::Server { status: 502 }, Success),
        (UpstreamError::NotFound, Success),
        (UpstreamError::Denied, Success),
        (UpstreamError::RateLimited { retry_after: None }, Success),
        (UpstreamError::invalid_response("status 405"), Success),
        (UpstreamError::DigestMismatch, Success),
        (UpstreamError::TooLarge, Success),
        (UpstreamError::RangeNotSatisfiable, Success),
    ] {
        let of = |host| outcome::<()>(&Err(error.clone()), host);
        assert_eq!(of(HopHost::Upstream), Some(expected), "{error}");
        assert_eq!(of(HopHost::Other), Some(Success), "{error} of another host");
    }
    assert_eq!(outcome(&Ok(()), HopHost::Upstream), Some(Success));
    let refused =
        UpstreamError::ProxyRefused { proxy: "proxy.test".to_owned(), refusal: ProxyRefusal::Login };
    assert_eq!(outcome::<()>(&Err(refused), HopHost::Upstream), None);
}
