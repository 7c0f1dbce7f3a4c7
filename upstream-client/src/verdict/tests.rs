//! The rules of [`verdict`] as tables: request, host, status, headers, grant → verdict.

use std::time::UNIX_EPOCH;

use oci_types::{Algorithm, Digest, MediaType};

use super::*;
use crate::request::ByteRange;

const OTHER_DIGEST: &[u8] = b"other";
const BEARER: (&str, &str) = ("www-authenticate", r#"Bearer realm="https://auth.test/token""#);
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

fn every_request() -> [RequestKind; 8] {
    [
        head_manifest(),
        RequestKind::GetManifest,
        head_blob(),
        get_first_byte(),
        RequestKind::GetBlob(None),
        RequestKind::GetBlob(Some(ByteRange { first: 4, last: Some(6) })),
        RequestKind::ListTags,
        RequestKind::GetToken,
    ]
}

/// The facts of a table's row that differ from the usual: sent by the upstream, no grant in hand, no credentials.
#[derive(Clone, Copy)]
struct Row<'a> {
    host: HopHost,
    redirects: usize,
    grant: GrantInHand,
    has_credentials: bool,
    headers: &'a [(&'static str, &'a str)],
}

const USUAL: Row<'static> = Row {
    host: HopHost::Upstream,
    redirects: 0,
    grant: GrantInHand::None,
    has_credentials: false,
    headers: &[],
};

fn with<'a>(headers: &'a [(&'static str, &'a str)]) -> Row<'a> {
    Row { headers, ..USUAL }
}

fn judge(request: &RequestKind, status: u16, row: Row<'_>) -> Verdict {
    let url = Url::parse("https://registry.test/v2/x").unwrap();
    let headers =
        row.headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    verdict(&Facts {
        request,
        hop: Hop { url: &url, host: row.host, redirects: row.redirects },
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers,
        grant: row.grant,
        has_credentials: row.has_credentials,
        now: UNIX_EPOCH + Duration::from_secs(1_000_000_000),
    })
}

fn bearer() -> Verdict {
    let realm = Url::parse("https://auth.test/token").unwrap();
    Verdict::Renew(Challenge::Bearer { realm, service: None, scope: None })
}

fn blob_of_size(size: Option<u64>) -> Verdict {
    Verdict::Has(Content { size, ..Content::default() })
}

fn is_invalid(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Invalid(_))
}

#[test]
fn a_status_means_the_same_for_every_request_and_host_unless_it_is_listed() {
    let unavailable = |status, retryable| Verdict::Unavailable { status, retryable };
    for request in every_request() {
        for host in [HopHost::Upstream, HopHost::Other] {
            let judge = |status| judge(&request, status, Row { host, ..USUAL });
            assert_eq!(judge(401), Verdict::Refused, "{request:?} {host:?}");
            assert_eq!(judge(429), Verdict::Limited { retry_after: None });
            assert_eq!(judge(500), unavailable(500, false));
            for status in 502..=504 {
                assert_eq!(judge(status), unavailable(status, true));
            }
            assert_eq!(judge(418), Verdict::Invalid("status 418".to_owned()));
            let head_is_refused = matches!(request, RequestKind::HeadManifest(_) | RequestKind::HeadBlob(_));
            if !head_is_refused {
                assert_eq!(judge(405), Verdict::Invalid("status 405".to_owned()));
                assert_eq!(judge(501), unavailable(501, false));
            }
            if head_blob() != request {
                assert_eq!(judge(400), Verdict::Invalid("status 400".to_owned()));
                assert_eq!(judge(403), Verdict::Refused);
            }
            if RequestKind::GetToken != request {
                assert_eq!((judge(404), judge(410)), (Verdict::Lacks, Verdict::Lacks));
            }
            assert_eq!(judge(416), Verdict::RangeNotSatisfiable);
            for status in [204, 304] {
                assert!(is_invalid(&judge(status)), "{request:?} {status}");
            }
        }
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
        (BASIC, false, None, refused()),
        (BASIC, true, None, basic()),
        (BASIC, true, Token, basic()),
        (BASIC, true, Login, refused()),
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
            let elsewhere = judge(&request, 401, Row { headers: &headers, host: HopHost::Other, ..row });
            assert_eq!(elsewhere, refused());
        }
    }
    let unknown = [("www-authenticate", "Negotiate")];
    assert!(is_invalid(&judge(&head_blob(), 401, with(&unknown))));
}

#[test]
fn redirects_are_followed_up_to_a_limit_and_not_from_a_token_service() {
    let location = [("location", "/y")];
    for status in [301, 302, 303, 307, 308] {
        for request in every_request() {
            let judge = |row| judge(&request, status, row);
            if request == RequestKind::GetToken {
                assert!(is_invalid(&judge(with(&location))));
                continue;
            }
            let next = Url::parse("https://registry.test/y").unwrap();
            for host in [HopHost::Upstream, HopHost::Other] {
                let last = Row { host, redirects: redirect::MAX_REDIRECTS - 1, ..with(&location) };
                assert_eq!(judge(last), Verdict::Redirect(next.clone()), "{request:?}");
            }
            let one_more = Row { redirects: redirect::MAX_REDIRECTS, ..with(&location) };
            assert!(is_invalid(&judge(one_more)));
            assert!(is_invalid(&judge(with(&[]))));
            assert!(is_invalid(&judge(with(&[("location", "http://registry.test/y")]))));
        }
    }
    assert!(is_invalid(&judge(&head_blob(), 300, with(&location))));
}

#[test]
fn a_manifest_is_described_by_the_headers() {
    let requested = digest().to_string();
    let headers = [
        ("docker-content-digest", requested.as_str()),
        ("content-type", "application/vnd.oci.image.index.v1+json"),
        ("content-length", "31"),
        ("etag", "\"ignored\""),
    ];
    let content = Content {
        digest: Some(digest()),
        media_type: Some(MediaType::new("application/vnd.oci.image.index.v1+json")),
        size: Some(31),
        ..Content::default()
    };
    for request in [head_manifest(), RequestKind::GetManifest] {
        let judge = |headers| judge(&request, 200, with(headers));
        assert_eq!(judge(&headers), Verdict::Has(content.clone()));
        assert_eq!(judge(&[]), Verdict::Has(Content::default()));
        let invalid = [("docker-content-digest", "odd"), ("content-type", ""), ("content-length", "many")];
        assert_eq!(judge(&invalid), Verdict::Has(Content::default()));
        assert!(is_invalid(&judge(&[HTML])), "{request:?}");
    }
}

#[test]
fn a_manifest_with_another_digest_than_the_requested_one_is_refused_where_both_can_be_compared() {
    let other = Digest::sha256(OTHER_DIGEST).to_string();
    let headers = [("docker-content-digest", other.as_str())];
    assert_eq!(judge(&head_manifest(), 200, with(&headers)), Verdict::DigestMismatch);
    let by_tag = RequestKind::HeadManifest(Reference::parse("latest").unwrap());
    let of_sha512 = RequestKind::HeadManifest(Reference::Digest(Digest::of(Algorithm::Sha512, OTHER_DIGEST)));
    for request in [by_tag, of_sha512, RequestKind::GetManifest] {
        assert!(matches!(judge(&request, 200, with(&headers)), Verdict::Has(_)), "{request:?}");
    }
}

#[test]
fn head_that_is_refused_proves_nothing() {
    let elsewhere = Row { host: HopHost::Other, ..USUAL };
    for (request, status, row, expected) in [
        (head_manifest(), 405, USUAL, Verdict::TryGet),
        (head_manifest(), 501, elsewhere, Verdict::TryGet),
        (head_manifest(), 403, elsewhere, Verdict::Refused),
        (head_blob(), 400, USUAL, Verdict::TryGet),
        (head_blob(), 405, USUAL, Verdict::TryGet),
        (head_blob(), 501, elsewhere, Verdict::TryGet),
        (head_blob(), 403, elsewhere, Verdict::TryGet),
        (head_blob(), 403, USUAL, Verdict::Refused),
        (head_blob(), 401, elsewhere, Verdict::Refused),
        (head_blob(), 404, elsewhere, Verdict::Lacks),
    ] {
        assert_eq!(judge(&request, status, row), expected, "{request:?} {status} {:?}", row.host);
    }
}

#[test]
fn the_size_of_a_blob_is_in_one_of_two_headers() {
    let length = ("content-length", "10");
    for (request, status, headers, expected) in [
        (head_blob(), 200, &[length][..], Some(10)),
        (head_blob(), 200, &[], None),
        (head_blob(), 200, &[length, ("content-encoding", "identity")], Some(10)),
        (head_blob(), 200, &[length, ("content-encoding", "gzip")], None),
        (get_first_byte(), 200, &[length], Some(10)),
        (get_first_byte(), 200, &[length, ("content-encoding", "gzip")], None),
        (get_first_byte(), 206, &[("content-length", "1"), ("content-range", "bytes 0-0/10")], Some(10)),
        (get_first_byte(), 206, &[("content-length", "1"), ("content-range", "bytes 0-0/*")], None),
        (get_first_byte(), 206, &[("content-length", "1")], None),
        (get_first_byte(), 416, &[("content-range", "bytes */0")], Some(0)),
    ] {
        let verdict = judge(&request, status, with(headers));
        assert_eq!(verdict, blob_of_size(expected), "{request:?} {status} {headers:?}");
    }
    let not_empty = with(&[("content-range", "bytes */10")]);
    assert_eq!(judge(&get_first_byte(), 416, not_empty), Verdict::RangeNotSatisfiable);
    assert!(is_invalid(&judge(&head_blob(), 206, with(&[("content-range", "bytes 0-0/10")]))));
}

#[test]
fn html_is_no_blob_unless_the_response_names_the_blob() {
    let (requested, other) = (digest().to_string(), Digest::sha256(OTHER_DIGEST).to_string());
    let naming = |digest| [HTML, ("content-length", "6"), ("docker-content-digest", digest)];
    for request in [head_blob(), get_first_byte()] {
        assert!(is_invalid(&judge(&request, 200, with(&[HTML]))));
        assert!(is_invalid(&judge(&request, 206, with(&[HTML]))));
        assert!(is_invalid(&judge(&request, 200, with(&naming(&other)))));
        assert_eq!(judge(&request, 200, with(&naming(&requested))), blob_of_size(Some(6)));
        assert_eq!(judge(&request, 404, with(&[HTML])), Verdict::Lacks);
    }
    // The digest of the body decides.
    let whole = judge(&RequestKind::GetBlob(None), 200, with(&[HTML]));
    assert_eq!(whole, Verdict::Has(Content::default()));
}

#[test]
fn a_body_is_the_whole_blob_or_begins_where_the_requested_range_does() {
    let whole = |size| Content { size, length: size, ..Content::default() };
    let from_4 = |size, length| Content { size, start: 4, length: Some(length), ..Content::default() };
    let length = ("content-length", "10");
    let until_6 = Some(ByteRange { first: 4, last: Some(6) });
    let to_the_end = Some(ByteRange { first: 4, last: None });
    for (range, status, headers, expected) in [
        (None, 200, &[length][..], Some(whole(Some(10)))),
        (None, 200, &[], Some(whole(None))),
        (until_6, 200, &[length], Some(whole(Some(10)))),
        (until_6, 206, &[("content-range", "bytes 4-6/10")], Some(from_4(Some(10), 3))),
        (until_6, 206, &[("content-range", "bytes 4-5/*")], Some(from_4(None, 2))),
        (to_the_end, 206, &[("content-range", "bytes 4-9/10")], Some(from_4(Some(10), 6))),
        (until_6, 206, &[("content-range", "bytes 4-7/10")], None),
        (until_6, 206, &[("content-range", "bytes 3-6/10")], None),
        (to_the_end, 206, &[("content-range", "bytes 5-9/10")], None),
        (until_6, 206, &[("content-range", "bytes */10")], None),
        (until_6, 206, &[], None),
        (None, 206, &[("content-range", "bytes 0-9/10")], None),
    ] {
        let verdict = judge(&RequestKind::GetBlob(range), status, with(headers));
        match expected {
            Some(content) => assert_eq!(verdict, Verdict::Has(content), "{range:?} {headers:?}"),
            None => assert!(is_invalid(&verdict), "{range:?} {headers:?}"),
        }
    }
}

#[test]
fn lists_and_tokens_are_read_from_the_body() {
    for request in [RequestKind::ListTags, RequestKind::GetToken] {
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
        assert_eq!(outcome::<()>(&Err(error.clone()), HopHost::Upstream), expected, "{error}");
        assert_eq!(outcome::<()>(&Err(error.clone()), HopHost::Other), Success, "{error} of another host");
    }
    assert_eq!(outcome(&Ok(()), HopHost::Upstream), Success);
}
