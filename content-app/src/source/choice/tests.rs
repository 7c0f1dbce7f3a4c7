//! Tables of failures and what follows them.

use std::time::Duration;

use super::*;

const MAX_FAILURES: u32 = 4;

fn broken() -> DownloadError {
    DownloadError::Upstream(UpstreamError::unreachable("reset"))
}

#[test]
fn a_source_that_fails_is_followed_by_the_next_and_used_again_later() {
    let mut choice = Choice::new(2, MAX_FAILURES);
    assert_eq!(choice.current().unwrap(), 0);
    assert_eq!(choice.failed(0, &broken(), true).unwrap(), Next::Retry);
    assert_eq!(choice.current().unwrap(), 1);
    assert_eq!(choice.failed(1, &broken(), true).unwrap(), Next::Retry);
    assert_eq!(choice.current().unwrap(), 0);
}

#[test]
fn a_source_without_the_blob_is_excluded_and_hides_no_better_reason() {
    let mut choice = Choice::new(2, MAX_FAILURES);
    let limited = UpstreamError::RateLimited { retry_after: Some(Duration::from_secs(7)) };
    assert_eq!(choice.failed(0, &DownloadError::Upstream(limited), false).unwrap(), Next::Other);
    for less in [UpstreamError::NotFound, UpstreamError::Denied] {
        let end = choice.failed(1, &DownloadError::Upstream(less), false).unwrap_err();
        assert!(matches!(end, FillError::Upstream(UpstreamError::RateLimited { .. })), "{end:?}");
    }
}

#[test]
fn failures_are_limited_and_progress_resets_their_count() {
    let mut choice = Choice::new(1, MAX_FAILURES);
    for _ in 1..MAX_FAILURES {
        choice.failed(0, &broken(), true).unwrap();
    }
    choice.progressed();
    for _ in 1..MAX_FAILURES {
        choice.failed(0, &broken(), true).unwrap();
    }
    assert!(choice.failed(0, &broken(), true).is_err());
    assert!(matches!(Choice::new(0, 1).current(), Err(FillError::NoSource)));
    assert!(matches!(Choice::unconfigured(1).current(), Err(FillError::Unconfigured)));
}

#[test]
fn a_fill_without_bytes_fails_early() {
    let mut choice = Choice::new(1, MAX_FAILURES);
    for _ in 1..MAX_FAILURES_AT_START {
        choice.failed(0, &broken(), false).unwrap();
    }
    assert!(choice.failed(0, &broken(), false).is_err());
}

#[test]
fn a_followed_peer_is_probed_after_a_failure_and_left_after_too_many() {
    let mut choice = Choice::new(1, MAX_FAILURES);
    choice.follow(Some(1));
    assert_eq!(choice.current().unwrap(), 1);
    for _ in 1..MAX_FAILURES {
        assert_eq!(choice.failed(1, &broken(), true).unwrap(), Next::ProbePeer);
    }
    assert_eq!(choice.failed(1, &broken(), true).unwrap(), Next::Retry);
    assert_eq!(choice.current().unwrap(), 0);
    assert_eq!(choice.failed(1, &broken(), true).unwrap(), Next::Ignore);
    let limited = DownloadError::Upstream(UpstreamError::RateLimited { retry_after: None });
    assert!(choice.failed(1, &limited, true).is_err());
}

#[test]
fn a_mismatch_excludes_the_only_contributor() {
    let mut choice = Choice::new(2, MAX_FAILURES);
    choice.mismatched(Contributors::One(0), 2).unwrap();
    assert_eq!(choice.current().unwrap(), 1);
    assert!(matches!(choice.mismatched(Contributors::One(1), 2), Err(FillError::WrongDigest)));
    assert!(Choice::new(1, MAX_FAILURES).mismatched(Contributors::None, 1).is_err());
}

#[test]
fn a_mismatch_of_several_contributors_excludes_none_and_keeps_to_one_source() {
    let mut choice = Choice::new(2, MAX_FAILURES);
    choice.mismatched(Contributors::Several, 2).unwrap();
    assert_eq!(choice.failed(0, &broken(), true).unwrap(), Next::Retry);
    assert_eq!(choice.current().unwrap(), 0);
    for _ in 0..3 {
        choice.mismatched(Contributors::Several, 2).unwrap();
    }
    assert!(choice.mismatched(Contributors::Several, 2).is_err());
}

#[test]
fn a_peer_is_left_after_two_mismatches() {
    let mut choice = Choice::new(1, MAX_FAILURES);
    choice.follow(Some(1));
    choice.mismatched(Contributors::One(1), 2).unwrap();
    assert_eq!(choice.current().unwrap(), 1);
    choice.mismatched(Contributors::One(1), 2).unwrap();
    assert_eq!(choice.current().unwrap(), 0);
}
