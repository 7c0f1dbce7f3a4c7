//! Tables of requests and their answers.

use oci_types::Digest;

use super::*;
use crate::request::RangeSpec;

const SIZE: u64 = 10;

fn request(range: Option<&str>, is_head: bool) -> BlobRequest {
    let digest = Digest::sha256(b"blob");
    BlobRequest {
        repository: None,
        etag: Some(format!("\"{digest}\"")),
        digest,
        is_head,
        range: RangeSpec::parse(range),
        is_not_modified: false,
    }
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    let mut values = answer.headers().into_iter().filter(|(header, _)| *header == name);
    let value = values.next().map(|(_, value)| value);
    assert!(values.next().is_none(), "{name} is sent twice");
    value
}

#[test]
fn status_range_and_length_follow_from_the_requested_range() {
    for (range, status, sent, content_range) in [
        (None, 200, 0..10, None),
        (Some("bytes=0-"), 206, 0..10, Some("bytes 0-9/10")),
        (Some("bytes=2-5"), 206, 2..6, Some("bytes 2-5/10")),
        (Some("bytes=-3"), 206, 7..10, Some("bytes 7-9/10")),
        (Some("bytes=8-99"), 206, 8..10, Some("bytes 8-9/10")),
        (Some("bytes=10-"), 416, 0..0, Some("bytes */10")),
        (Some("bytes=1-2,4-5"), 200, 0..10, None),
    ] {
        for is_head in [false, true] {
            let answer = Answer::new(&request(range, is_head), Known::Stored { size: SIZE });
            assert_eq!(answer.status.as_u16(), status, "{range:?}");
            assert_eq!(answer.range, sent, "{range:?}");
            assert_eq!(answer.length(), Some(sent.end - sent.start), "{range:?}");
            assert_eq!(header(&answer, "Content-Range").as_deref(), content_range, "{range:?}");
            let has_body = !is_head && status != 416;
            assert_eq!(answer.source == BodySource::Storage, has_body, "{range:?} {is_head}");
        }
    }
}

#[test]
fn source_and_cache_status_follow_from_what_is_known() {
    for (known, source, cache_status) in [
        (Known::Constant(b"0123456789"), BodySource::Constant(b"0123456789"), "tidegate; hit"),
        (Known::Stored { size: SIZE }, BodySource::Storage, "tidegate; hit"),
        (Known::OnDemand { size: Some(SIZE) }, BodySource::None, "tidegate; fwd=miss"),
        (Known::Filling { size: SIZE, collapsed: false }, BodySource::Fill, "tidegate; fwd=miss; stored"),
        (
            Known::Filling { size: SIZE, collapsed: true },
            BodySource::Fill,
            "tidegate; fwd=miss; stored; collapsed",
        ),
        (Known::Bypassed { size: SIZE }, BodySource::Upstream, "tidegate; fwd=bypass; detail=not-stored"),
    ] {
        let answer = Answer::new(&request(None, false), known);
        assert_eq!(answer.source, source, "{known:?}");
        assert_eq!(header(&answer, "Cache-Status").as_deref(), Some(cache_status), "{known:?}");
        let unverified = answer.unverified();
        assert_eq!(header(&unverified, "Cache-Status"), Some(format!("{cache_status}; detail=unverified")));
    }
}

#[test]
fn a_head_answer_without_a_known_size_has_no_length() {
    let answer = Answer::new(&request(Some("bytes=0-1"), true), Known::OnDemand { size: None });
    assert_eq!((answer.status, answer.length()), (StatusCode::OK, None));
    assert_eq!(answer.source, BodySource::None);
}

#[test]
fn an_answer_without_new_content_has_the_headers_of_its_status() {
    let request = request(None, false);
    let not_modified = Answer::not_modified(&request);
    assert_eq!(not_modified.status, StatusCode::NOT_MODIFIED);
    assert_eq!(not_modified.headers(), [("ETag", request.etag.clone().unwrap())]);
    assert_eq!(not_modified.source, BodySource::None);
}

#[test]
fn an_answer_is_whole_when_its_range_is() {
    for (range, is_whole) in [(None, true), (Some("bytes=0-9"), true), (Some("bytes=1-"), false)] {
        let answer = Answer::new(&request(range, false), Known::Stored { size: SIZE });
        assert_eq!(answer.is_whole(), is_whole, "{range:?}");
    }
}
