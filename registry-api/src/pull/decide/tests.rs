//! The tables of `docs/pull-through.md`, row by row.

use std::time::Duration;

use oci_types::{Digest, MediaType, media_type::OCI_MANIFEST};
use shared_models::db::links::Proof;

use super::*;
use crate::answer::ManifestHeaders;

fn local_digest() -> Digest {
    Digest::sha256(b"local")
}

fn upstream_digest() -> Digest {
    Digest::sha256(b"upstream")
}

fn local(fresh: bool, within_stale_limit: bool) -> Option<LocalTag> {
    Some(LocalTag { digest: local_digest(), fresh, within_stale_limit, checked_later: false })
}

fn headers(digest: Digest) -> ManifestHeaders {
    ManifestHeaders { digest, media_type: MediaType::new(OCI_MANIFEST), size: 7 }
}

fn names(digest: Digest, bytes_present: bool) -> Upstream<UpstreamTag> {
    let headers = Some(headers(digest.clone()));
    Upstream::Has(UpstreamTag::Digest { digest, bytes_present, headers })
}

fn failures() -> [UpstreamFailure; 6] {
    [
        UpstreamFailure::NotFound,
        UpstreamFailure::Denied,
        UpstreamFailure::RateLimited { retry_after: Some(Duration::from_secs(9)) },
        UpstreamFailure::BadGateway,
        UpstreamFailure::Timeout,
        UpstreamFailure::Unavailable { retry_after: None },
    ]
}

fn check(local: Option<LocalTag>, upstream: Upstream<UpstreamTag>) -> TagCheckFacts {
    TagCheckFacts { local, upstream, recorded: false, headers_only: false, serve_deleted: true }
}

fn checked(local: Option<LocalTag>, upstream: Upstream<UpstreamTag>) -> TagCheckDecision {
    tag_check(&check(local, upstream))
}

#[test]
fn a_request_for_a_tag_is_answered_fresh_or_from_the_negative_cache_or_checks_the_tag() {
    let decide = |local, known_refusal, check_is_slow| {
        tag_request(&TagRequestFacts { local, named: None, known_refusal, check_is_slow })
    };
    for (known_refusal, slow) in [(false, false), (true, false), (false, true)] {
        for within_limit in [true, false] {
            let fresh = decide(local(true, within_limit), known_refusal, slow);
            assert_eq!(fresh, TagRequestDecision::ServeFresh);
        }
    }
    for within_limit in [true, false] {
        let stale = local(false, within_limit);
        assert_eq!(decide(stale.clone(), false, false), TagRequestDecision::CheckWithinWait);
        assert_eq!(decide(stale, true, false), TagRequestDecision::CheckWithinWait);
    }
    assert_eq!(decide(None, false, false), TagRequestDecision::Check);
    assert_eq!(decide(None, true, false), TagRequestDecision::RefuseKnown);
}

#[test]
fn a_check_that_is_slow_serves_the_local_copy_within_the_stale_limit() {
    let slow = |local| {
        tag_request(&TagRequestFacts { local, named: None, known_refusal: false, check_is_slow: true })
    };
    let timeout = UpstreamFailure::Timeout;
    assert_eq!(slow(local(false, true)), TagRequestDecision::ServeStale(timeout));
    assert_eq!(slow(local(false, false)), TagRequestDecision::Refuse(timeout));
}

#[test]
fn a_manifest_that_was_named_for_head_is_named_again() {
    let named = headers(upstream_digest());
    for (local, expected) in [
        (None, TagRequestDecision::AnswerHeaders(named.clone())),
        (local(false, true), TagRequestDecision::AnswerHeaders(named.clone())),
        (local(true, true), TagRequestDecision::ServeFresh),
    ] {
        let named = Some(named.clone());
        let facts = TagRequestFacts { local, named, known_refusal: false, check_is_slow: false };
        assert_eq!(tag_request(&facts), expected);
    }
}

#[test]
fn a_check_asks_upstream_unless_the_tag_has_become_fresh() {
    assert_eq!(checked(local(true, true), Upstream::NotAsked), TagCheckDecision::Serve(local_digest()));
    for stale in [None, local(false, true), local(false, false)] {
        assert_eq!(checked(stale, Upstream::NotAsked), TagCheckDecision::Head);
    }
}

#[test]
fn a_tag_that_did_not_move_is_recorded_as_checked_even_if_its_bytes_are_absent() {
    for bytes_present in [true, false] {
        let decision = checked(local(false, true), names(local_digest(), bytes_present));
        assert_eq!(decision, TagCheckDecision::RecordCheck(local_digest()));
    }
}

#[test]
fn a_moved_or_new_tag_links_present_bytes_and_fetches_absent_ones() {
    for known in [None, local(false, true), local(false, false)] {
        let present = checked(known.clone(), names(upstream_digest(), true));
        assert_eq!(present, TagCheckDecision::LinkExisting(upstream_digest()));
        let absent = checked(known.clone(), names(upstream_digest(), false));
        assert_eq!(absent, TagCheckDecision::Fetch(upstream_digest()));
        let by_tag = checked(known, Upstream::Has(UpstreamTag::NoUsableDigest));
        assert_eq!(by_tag, TagCheckDecision::FetchByTag);
    }
}

#[test]
fn a_head_request_fetches_nothing_unless_its_answer_is_not_known() {
    let facts = |upstream| TagCheckFacts { headers_only: true, ..check(local(false, true), upstream) };
    let answered = tag_check(&facts(names(upstream_digest(), false)));
    assert_eq!(answered, TagCheckDecision::AnswerHeaders(headers(upstream_digest())));
    // Without a length there is no answer; the bytes that are present need no request.
    let no_headers = UpstreamTag::Digest { digest: upstream_digest(), bytes_present: false, headers: None };
    let fetched = tag_check(&facts(Upstream::Has(no_headers)));
    assert_eq!(fetched, TagCheckDecision::Fetch(upstream_digest()));
    let by_tag = tag_check(&facts(Upstream::Has(UpstreamTag::NoUsableDigest)));
    assert_eq!(by_tag, TagCheckDecision::FetchByTag);
    let linked = tag_check(&facts(names(upstream_digest(), true)));
    assert_eq!(linked, TagCheckDecision::LinkExisting(upstream_digest()));
    let confirmed = tag_check(&facts(names(local_digest(), true)));
    assert_eq!(confirmed, TagCheckDecision::RecordCheck(local_digest()));
}

#[test]
fn after_recording_the_tag_is_served_as_it_is_in_the_database() {
    for upstream in [
        names(local_digest(), true),
        names(upstream_digest(), true),
        names(upstream_digest(), false),
        Upstream::Has(UpstreamTag::NoUsableDigest),
    ] {
        let facts = TagCheckFacts { recorded: true, ..check(local(false, true), upstream) };
        assert_eq!(tag_check(&facts), TagCheckDecision::Serve(local_digest()));
    }
}

#[test]
fn a_later_check_of_another_process_decides() {
    let later = local(false, true).map(|local| LocalTag { checked_later: true, ..local });
    for upstream in [names(upstream_digest(), true), names(upstream_digest(), false)] {
        assert_eq!(checked(later.clone(), upstream), TagCheckDecision::Serve(local_digest()));
    }
}

#[test]
fn a_local_tag_is_served_stale_on_every_failure_within_the_limit_and_refused_beyond_it() {
    for failure in failures() {
        let failed = Upstream::Failed(failure);
        let stale = checked(local(false, true), failed.clone());
        assert_eq!(stale, TagCheckDecision::ServeStale(local_digest(), failure));
        assert_eq!(checked(local(false, false), failed.clone()), TagCheckDecision::Refuse(failure));
        assert_eq!(checked(None, failed), TagCheckDecision::Refuse(failure));
    }
}

#[test]
fn a_tag_deleted_upstream_is_gone_where_the_policy_says_so() {
    let gone = |failure| {
        let facts = check(local(false, true), Upstream::Failed(failure));
        tag_check(&TagCheckFacts { serve_deleted: false, ..facts })
    };
    let (not_found, bad) = (UpstreamFailure::NotFound, UpstreamFailure::BadGateway);
    assert_eq!(gone(not_found), TagCheckDecision::Refuse(not_found));
    assert_eq!(gone(bad), TagCheckDecision::ServeStale(local_digest(), bad));
}

const LINKS: [Option<Proof>; 4] = [None, Some(OTHER), Some(OWN), Some(Proof::Confirmed)];
const OWN: Proof = Proof::Claimed { from_other_upstream: false };
const OTHER: Proof = Proof::Claimed { from_other_upstream: true };

fn is_proven_by_the_table(link: Option<Proof>) -> bool {
    link == Some(OWN) || link == Some(Proof::Confirmed)
}

#[test]
fn a_request_for_a_digest_is_served_or_answered_from_the_negative_cache_or_pulled() {
    for link in LINKS {
        for (bytes_present, known_refusal) in [(true, true), (true, false), (false, true), (false, false)] {
            let decision = digest_request(&DigestFacts { link, bytes_present }, known_refusal);
            let expected = match (bytes_present && is_proven_by_the_table(link), known_refusal) {
                (true, _) => DigestRequestDecision::Serve,
                (false, true) => DigestRequestDecision::RefuseKnown,
                (false, false) => DigestRequestDecision::Pull,
            };
            assert_eq!(decision, expected, "{link:?} {bytes_present}");
        }
    }
}

#[test]
fn a_pull_of_a_digest_links_what_head_confirms_and_fetches_the_rest() {
    for link in LINKS {
        let pull = |bytes_present, upstream| digest_pull(&DigestFacts { link, bytes_present }, &upstream);
        let served =
            |otherwise| if is_proven_by_the_table(link) { DigestPullDecision::Serve } else { otherwise };
        assert_eq!(pull(true, Upstream::NotAsked), served(DigestPullDecision::Head));
        assert_eq!(pull(true, Upstream::Has(DigestHeader::Sent)), served(DigestPullDecision::LinkExisting));
        assert_eq!(pull(true, Upstream::Has(DigestHeader::Missing)), served(DigestPullDecision::Fetch));
        assert_eq!(pull(false, Upstream::NotAsked), DigestPullDecision::Fetch);
        assert_eq!(pull(false, Upstream::Has(DigestHeader::Sent)), DigestPullDecision::Fetch);
        for failure in failures() {
            let refused = DigestPullDecision::Refuse(failure);
            assert_eq!(pull(true, Upstream::Failed(failure)), served(refused.clone()));
            assert_eq!(pull(false, Upstream::Failed(failure)), refused);
        }
    }
}

/// A blob that nothing is known of.
fn unknown_blob() -> BlobFacts {
    BlobFacts {
        constant: false,
        link: None,
        stored: false,
        presigned: false,
        known_refusal: false,
        upstream: Upstream::NotAsked,
        head: false,
    }
}

#[test]
fn a_constant_blob_is_answered_from_memory_whatever_else_is_known() {
    for (link, head) in LINKS.into_iter().flat_map(|link| [(link, false), (link, true)]) {
        let facts = BlobFacts { constant: true, link, head, known_refusal: true, ..unknown_blob() };
        assert_eq!(blob(&facts), BlobDecision::Constant);
    }
}

#[test]
fn a_blob_is_described_or_redirected_where_its_link_suffices_and_confirmed_by_head_elsewhere() {
    for link in LINKS {
        for bits in 0..8_u8 {
            let [stored, presigned, head] = [1, 2, 4].map(|bit| bits & bit != 0);
            let facts = BlobFacts { link, stored, presigned, head, ..unknown_blob() };
            let answer = match (head, stored && presigned) {
                (true, _) => BlobDecision::Describe,
                (false, true) => BlobDecision::Presign,
                (false, false) => BlobDecision::Redirect,
            };
            let expected = if is_proven_by_the_table(link) { answer.clone() } else { BlobDecision::Head };
            assert_eq!(blob(&facts), expected, "{facts:?}");
            let confirmed = BlobFacts { upstream: Upstream::Has(()), ..facts };
            assert_eq!(blob(&confirmed), answer, "{confirmed:?}");
        }
    }
}

#[test]
fn a_blob_without_a_sufficient_link_is_refused_when_upstream_does_not_confirm_it() {
    for link in [None, Some(OTHER)] {
        for (head, stored) in [(false, false), (false, true), (true, false), (true, true)] {
            let facts = BlobFacts { link, head, stored, ..unknown_blob() };
            for failure in failures() {
                let failed = BlobFacts { upstream: Upstream::Failed(failure), ..facts.clone() };
                assert_eq!(blob(&failed), BlobDecision::Refuse(failure));
            }
            let missing = BlobFacts { known_refusal: true, ..facts };
            assert_eq!(blob(&missing), BlobDecision::RefuseKnown);
        }
    }
}

#[test]
fn a_tag_list_is_known_fetched_or_local() {
    let unavailable = UpstreamFailure::Unavailable { retry_after: None };
    let not_found = Some(UpstreamFailure::NotFound);
    for (known, offline, refusal, expected) in [
        (KnownList::None, false, None, ListingDecision::Fetch),
        (KnownList::Outdated, false, None, ListingDecision::Fetch),
        (KnownList::Fresh, false, None, ListingDecision::ServeKnown),
        (KnownList::Fresh, true, not_found, ListingDecision::ServeKnown),
        (KnownList::None, false, not_found, ListingDecision::ListLocal(UpstreamFailure::NotFound)),
        (KnownList::Outdated, false, not_found, ListingDecision::ServeOutdated(UpstreamFailure::NotFound)),
        (KnownList::None, true, not_found, ListingDecision::ListLocal(UpstreamFailure::NotFound)),
        (KnownList::None, true, None, ListingDecision::ListLocal(unavailable)),
        (KnownList::Outdated, true, None, ListingDecision::ServeOutdated(unavailable)),
    ] {
        let facts = ListingFacts { known, offline, refusal, failure: None };
        assert_eq!(listing(facts), expected, "{facts:?}");
        for failure in failures() {
            let expected = match known {
                KnownList::None => ListingDecision::ListLocal(failure),
                KnownList::Outdated => ListingDecision::ServeOutdated(failure),
                KnownList::Fresh => ListingDecision::ServeKnown,
            };
            assert_eq!(listing(ListingFacts { failure: Some(failure), ..facts }), expected);
        }
    }
}
