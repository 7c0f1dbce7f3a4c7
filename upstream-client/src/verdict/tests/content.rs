//! The rules on successful responses: what the headers state about the content.

use super::*;

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
