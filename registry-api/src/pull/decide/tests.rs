//! The tables of `docs/pull-through.md`, row by row.

use super::*;

fn d() -> Digest {
    Digest::sha256(b"here")
}

fn e() -> Digest {
    Digest::sha256(b"upstream")
}

fn local(fresh: bool, within_stale_limit: bool) -> Option<LocalTag> {
    Some(LocalTag { digest: d(), fresh, within_stale_limit })
}

fn says(digest: Digest, bytes_here: bool) -> Upstream<Tagged> {
    Upstream::Has(Tagged::As { digest, bytes_here })
}

fn every_failure() -> [Failure; 6] {
    [
        Failure::NotFound,
        Failure::Denied,
        Failure::RateLimited { retry_after: Some(Duration::from_secs(9)) },
        Failure::Bad,
        Failure::Timeout,
        Failure::Unavailable { retry_after: None },
    ]
}

fn decide(local: Option<LocalTag>, upstream: Upstream<Tagged>) -> TagDecision {
    tag(&TagFacts { local, upstream, serve_deleted: true })
}

#[test]
fn a_fresh_tag_is_served_without_asking() {
    assert_eq!(decide(local(true, true), Upstream::NotAsked), TagDecision::Serve(d()));
    assert_eq!(decide(local(true, false), Upstream::NotAsked), TagDecision::Serve(d()));
}

#[test]
fn an_unknown_or_expired_tag_is_asked_about() {
    assert_eq!(decide(None, Upstream::NotAsked), TagDecision::Ask);
    assert_eq!(decide(local(false, true), Upstream::NotAsked), TagDecision::Ask);
    assert_eq!(decide(local(false, false), Upstream::NotAsked), TagDecision::Ask);
}

#[test]
fn an_unmoved_tag_is_revalidated_whatever_is_stored() {
    for bytes_here in [true, false] {
        assert_eq!(decide(local(false, true), says(d(), bytes_here)), TagDecision::Revalidated(d()));
    }
}

#[test]
fn a_moved_or_new_tag_adopts_known_bytes_and_fetches_unknown_ones() {
    for known in [None, local(false, true), local(false, false)] {
        assert_eq!(decide(known.clone(), says(e(), true)), TagDecision::Adopt(e()));
        assert_eq!(decide(known.clone(), says(e(), false)), TagDecision::Fetch(e()));
        assert_eq!(decide(known, Upstream::Has(Tagged::Unnamed)), TagDecision::FetchUnnamed);
    }
}

#[test]
fn a_known_tag_is_served_stale_on_every_failure_within_the_limit_and_refused_beyond_it() {
    for failure in every_failure() {
        let failed = Upstream::Failed(failure);
        assert_eq!(decide(local(false, true), failed.clone()), TagDecision::Stale(d(), failure));
        assert_eq!(decide(local(false, false), failed.clone()), TagDecision::Refuse(failure));
        assert_eq!(decide(None, failed), TagDecision::Refuse(failure));
    }
}

#[test]
fn a_tag_deleted_upstream_is_gone_where_the_policy_says_so() {
    let facts = |upstream| TagFacts { local: local(false, true), upstream, serve_deleted: false };
    assert_eq!(tag(&facts(Upstream::Failed(Failure::NotFound))), TagDecision::Refuse(Failure::NotFound));
    assert_eq!(tag(&facts(Upstream::Failed(Failure::Bad))), TagDecision::Stale(d(), Failure::Bad));
}

#[test]
fn a_digest_is_served_only_where_it_is_linked_and_here() {
    let facts = |linked, bytes_here| DigestFacts { linked, bytes_here };
    assert_eq!(digest(facts(true, true), &Upstream::NotAsked), DigestDecision::Serve);
    assert_eq!(digest(facts(true, false), &Upstream::NotAsked), DigestDecision::Fetch);
    assert_eq!(digest(facts(false, false), &Upstream::NotAsked), DigestDecision::Fetch);
    assert_eq!(digest(facts(false, true), &Upstream::NotAsked), DigestDecision::AskToAdopt);
    assert_eq!(digest(facts(false, true), &Upstream::Has(())), DigestDecision::Serve);
    for failure in every_failure() {
        let failed = Upstream::Failed(failure);
        assert_eq!(digest(facts(true, true), &failed), DigestDecision::Serve);
        for not_served in [facts(true, false), facts(false, true), facts(false, false)] {
            assert_eq!(digest(not_served, &failed), DigestDecision::Refuse(failure));
        }
    }
}

#[test]
fn a_blob_is_described_redirected_asked_for_or_refused() {
    let facts = |constant, linked, head, upstream| BlobFacts {
        constant,
        linked,
        stored: false,
        presigned: true,
        head,
        upstream,
    };
    for linked in [true, false] {
        for head in [true, false] {
            assert_eq!(blob(&facts(true, linked, head, Upstream::NotAsked)), BlobDecision::Constant);
        }
    }
    assert_eq!(blob(&facts(false, true, true, Upstream::NotAsked)), BlobDecision::Describe);
    assert_eq!(blob(&facts(false, true, false, Upstream::NotAsked)), BlobDecision::Redirect);
    for head in [true, false] {
        assert_eq!(blob(&facts(false, false, head, Upstream::NotAsked)), BlobDecision::Ask);
        assert_eq!(blob(&facts(false, false, head, Upstream::Has(()))), BlobDecision::RecordPending);
        for failure in every_failure() {
            let refused = blob(&facts(false, false, head, Upstream::Failed(failure)));
            assert_eq!(refused, BlobDecision::Refuse(failure));
        }
    }
}

#[test]
fn a_client_is_sent_to_the_object_store_for_the_bytes_of_a_linked_blob_that_is_stored_and_only_for_these() {
    for bits in 0..16_u8 {
        let [linked, stored, presigned, head] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        let upstream = Upstream::NotAsked;
        let decision = blob(&BlobFacts { constant: false, linked, stored, presigned, upstream, head });
        let expected = match (linked, head, stored && presigned) {
            (false, ..) => BlobDecision::Ask,
            (true, true, _) => BlobDecision::Describe,
            (true, false, true) => BlobDecision::Presign,
            (true, false, false) => BlobDecision::Redirect,
        };
        assert_eq!(decision, expected, "{bits:04b}");
    }
}
