//! Tables of failures and what follows them.

use std::time::Duration;

use super::*;

const MAX_ROUNDS: u32 = 4;

fn of(origins: &[&str]) -> Choice {
    Choice::new(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>(), MAX_ROUNDS)
}

/// One source, whose bytes came in this number of responses.
fn one(source: usize, responses: usize) -> Contributors {
    Contributors::One { source, responses }
}

fn broken() -> DownloadError {
    DownloadError::Upstream(UpstreamError::unreachable("reset"))
}

#[test]
fn every_source_is_used_once_in_a_round() {
    let mut choice = of(&["a", "b"]);
    assert_eq!(choice.current().unwrap(), 0);
    assert_eq!(choice.failed(0, &DownloadError::Interrupted, true).unwrap(), Next::Other);
    assert_eq!(choice.current().unwrap(), 1);
    assert_eq!(choice.failed(1, &broken(), true).unwrap(), Next::Retry);
    assert_eq!(choice.current().unwrap(), 0);
}

#[test]
fn a_failure_of_an_upstream_rules_out_all_its_sources_at_once() {
    for error in [
        UpstreamError::Timeout,
        UpstreamError::unreachable("refused"),
        UpstreamError::Server { status: 503 },
        UpstreamError::CircuitOpen { retry_after: Duration::from_secs(9) },
        UpstreamError::RateLimited { retry_after: None },
    ] {
        let mut choice = of(&["dead", "dead", "dead", "alive"]);
        assert_eq!(choice.failed(0, &DownloadError::Upstream(error.clone()), false).unwrap(), Next::Other);
        assert_eq!(choice.current().unwrap(), 3, "{error}");
    }
    // A failure of one repository does not exclude the others.
    let mut choice = of(&["a", "a"]);
    let status = DownloadError::Upstream(UpstreamError::Server { status: 500 });
    assert_eq!(choice.failed(0, &status, false).unwrap(), Next::Other);
    assert_eq!(choice.current().unwrap(), 1);
}

#[test]
fn an_open_circuit_ends_a_fill_without_bytes_at_once() {
    let open = DownloadError::Upstream(UpstreamError::CircuitOpen { retry_after: Duration::from_secs(9) });
    let end = of(&["a", "a"]).failed(0, &open, false).unwrap_err();
    assert!(matches!(end, FillError::Upstream(UpstreamError::CircuitOpen { .. })), "{end:?}");
    assert_eq!(of(&["a"]).failed(0, &open, true).unwrap(), Next::Retry);
}

#[test]
fn a_size_that_sources_dispute_is_discarded_with_the_bytes_when_no_source_agrees() {
    let mut choice = of(&["a", "b"]);
    assert_eq!(choice.failed(0, &broken(), true).unwrap(), Next::Other);
    assert_eq!(choice.failed(1, &DownloadError::WrongSize, true).unwrap(), Next::StartOver);
    // The number of restarts is bounded, even with progress between them.
    for _ in 0..4 {
        choice.progressed();
        choice.failed(0, &broken(), true).unwrap();
        choice.failed(1, &DownloadError::WrongSize, true).unwrap();
    }
    choice.progressed();
    choice.failed(0, &broken(), true).unwrap();
    let end = choice.failed(1, &DownloadError::WrongSize, true).unwrap_err();
    assert!(matches!(end, FillError::WrongSize), "{end:?}");
}

#[test]
fn an_alternative_is_a_source_of_another_origin_that_has_not_failed() {
    let mut choice = of(&["a", "a", "b"]);
    assert!(choice.has_alternative(0) && choice.has_alternative(2));
    choice.failed(2, &broken(), true).unwrap();
    assert!(!choice.has_alternative(0));
    choice.progressed();
    assert!(choice.has_alternative(0));
}

#[test]
fn a_source_without_the_blob_is_excluded_and_hides_no_better_reason() {
    let mut choice = of(&["a", "b"]);
    let limited = UpstreamError::RateLimited { retry_after: Some(Duration::from_secs(7)) };
    assert_eq!(choice.failed(0, &DownloadError::Upstream(limited), false).unwrap(), Next::Other);
    for less in [UpstreamError::NotFound, UpstreamError::Denied] {
        let end = choice.failed(1, &DownloadError::Upstream(less), false).unwrap_err();
        assert!(matches!(end, FillError::Upstream(UpstreamError::RateLimited { .. })), "{end:?}");
    }
}

#[test]
fn failures_are_limited_and_progress_resets_their_count() {
    let mut choice = of(&["a"]);
    for _ in 1..MAX_ROUNDS {
        choice.failed(0, &broken(), true).unwrap();
    }
    choice.progressed();
    for _ in 1..MAX_ROUNDS {
        choice.failed(0, &broken(), true).unwrap();
    }
    assert!(choice.failed(0, &broken(), true).is_err());
    assert!(matches!(Choice::new(&[], 1).current(), Err(FillError::NoSource)));
    assert!(matches!(Choice::unconfigured(1).current(), Err(FillError::Unconfigured)));
}

#[test]
fn a_fill_without_bytes_fails_early() {
    let mut choice = of(&["a"]);
    for _ in 1..MAX_ROUNDS_AT_START {
        choice.failed(0, &broken(), false).unwrap();
    }
    assert!(choice.failed(0, &broken(), false).is_err());
}

#[test]
fn a_followed_peer_is_probed_after_a_failure_and_left_after_too_many() {
    let mut choice = of(&["a"]);
    choice.follow(Some(1));
    assert_eq!(choice.current().unwrap(), 1);
    for _ in 1..MAX_ROUNDS {
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
    let mut choice = of(&["a", "b"]);
    choice.mismatched(one(0, 1), 2).unwrap();
    assert_eq!(choice.current().unwrap(), 1);
    assert!(matches!(choice.mismatched(one(1, 1), 2), Err(FillError::WrongDigest)));
    assert!(of(&["a"]).mismatched(Contributors::None, 1).is_err());
}

#[test]
fn bytes_of_several_responses_of_one_source_are_downloaded_again_once() {
    let mut choice = of(&["a"]);
    choice.mismatched(one(0, 2), 1).unwrap();
    assert_eq!(choice.current().unwrap(), 0);
    assert!(matches!(choice.mismatched(one(0, 2), 1), Err(FillError::WrongDigest)));
}

#[test]
fn a_mismatch_of_several_contributors_excludes_none_and_keeps_to_one_source() {
    let mut choice = of(&["a", "b"]);
    choice.mismatched(Contributors::Several, 2).unwrap();
    assert_eq!(choice.failed(0, &broken(), true).unwrap(), Next::Retry);
    assert_eq!(choice.current().unwrap(), 0);
    for _ in 0..4 {
        choice.mismatched(Contributors::Several, 2).unwrap();
    }
    assert!(choice.mismatched(Contributors::Several, 2).is_err());
}

#[test]
fn a_peer_is_left_after_two_mismatches() {
    let mut choice = of(&["a"]);
    choice.follow(Some(1));
    choice.mismatched(one(1, 1), 2).unwrap();
    assert_eq!(choice.current().unwrap(), 1);
    choice.mismatched(one(1, 1), 2).unwrap();
    assert_eq!(choice.current().unwrap(), 0);
}
