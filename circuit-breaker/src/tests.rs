use super::*;

const OPEN_DURATION: Duration = Duration::from_secs(10);

fn opened(now: Instant) -> CircuitBreaker {
    let breaker = CircuitBreaker::new(3, OPEN_DURATION);
    for attempt in 1..=3 {
        let transition = breaker.admit(now).unwrap().record(Outcome::Failure, now);
        assert_eq!(transition, (attempt == 3).then_some(Transition::Opened));
    }
    breaker
}

#[test]
fn only_consecutive_failures_open_the_circuit() {
    use Outcome::{Failure, Success};
    let now = Instant::now();
    let breaker = CircuitBreaker::new(3, OPEN_DURATION);
    for outcome in [Failure, Failure, Success, Failure, Failure] {
        assert_eq!(breaker.admit(now).unwrap().record(outcome, now), None);
    }
    assert!(breaker.admit(now).is_ok());
    assert_eq!(opened(now).remaining(now), Some(OPEN_DURATION));
}

#[test]
fn an_open_circuit_reports_the_time_until_it_is_half_open() {
    let now = Instant::now();
    let open = opened(now).admit(now + Duration::from_secs(4)).unwrap_err();
    assert_eq!(open, Open { retry_after: Duration::from_secs(6) });
    assert_eq!(open.to_string(), "circuit is open");
}

#[test]
fn a_half_open_circuit_admits_one_probe_which_decides() {
    let now = Instant::now();
    let breaker = opened(now);
    let later = now + OPEN_DURATION;
    let probe = breaker.admit(later).unwrap();
    assert_eq!(breaker.admit(later).unwrap_err(), Open { retry_after: PROBE_RETRY_AFTER });
    assert_eq!(probe.record(Outcome::Failure, later), Some(Transition::Opened));
    assert_eq!(breaker.admit(later).unwrap_err(), Open { retry_after: OPEN_DURATION });
    let later = later + OPEN_DURATION;
    let transition = breaker.admit(later).unwrap().record(Outcome::Success, later);
    assert_eq!(transition, Some(Transition::Closed));
    let (_one, _other) = (breaker.admit(later).unwrap(), breaker.admit(later).unwrap());
}

#[test]
fn a_dropped_probe_admits_the_next_one() {
    let now = Instant::now();
    let breaker = opened(now);
    drop(breaker.admit(now + OPEN_DURATION).unwrap());
    assert!(breaker.admit(now + OPEN_DURATION).is_ok());
}

#[test]
fn a_dropped_permit_of_a_closed_circuit_records_nothing() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(1, OPEN_DURATION);
    drop(breaker.admit(now).unwrap());
    assert!(breaker.admit(now).is_ok());
    assert_eq!(breaker.last_success(), None);
}

#[test]
fn a_call_from_before_the_opening_does_not_close_the_circuit() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(1, OPEN_DURATION);
    let early = breaker.admit(now).unwrap();
    breaker.admit(now).unwrap().record(Outcome::Failure, now);
    assert_eq!(early.record(Outcome::Success, now), None);
    assert!(breaker.admit(now).is_err());
    assert_eq!(breaker.last_success(), Some(now));
}

#[test]
fn an_open_circuit_of_another_process_opens_this_one_for_its_remaining_time() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(3, OPEN_DURATION);
    breaker.open(Duration::from_secs(4), now);
    assert_eq!(breaker.remaining(now), Some(Duration::from_secs(4)));
    breaker.open(Duration::from_secs(2), now);
    assert_eq!(breaker.remaining(now), Some(Duration::from_secs(4)), "it is not shortened");
    breaker.open(Duration::from_secs(3600), now);
    assert_eq!(breaker.remaining(now), Some(OPEN_DURATION), "the own open duration is the limit");
    let later = now + OPEN_DURATION;
    let probe = breaker.admit(later).unwrap();
    breaker.open(OPEN_DURATION, later);
    assert_eq!(breaker.remaining(later), None, "a probe is in flight");
    assert_eq!(probe.record(Outcome::Success, later), Some(Transition::Closed));
    assert_eq!(breaker.last_success(), Some(later));
}

#[test]
fn outcomes_without_a_permit_count() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(2, OPEN_DURATION);
    assert_eq!(breaker.record(Outcome::Failure, now), None);
    assert_eq!(breaker.record(Outcome::Failure, now), Some(Transition::Opened));
    let later = now + Duration::from_secs(4);
    assert_eq!(breaker.record(Outcome::Failure, later), None);
    assert_eq!(breaker.remaining(later), Some(OPEN_DURATION), "a failure keeps the circuit open");
    assert_eq!(breaker.record(Outcome::Success, later), Some(Transition::Closed));
    assert_eq!(breaker.record(Outcome::Failure, later), None, "failures before the success do not count");
    assert!(breaker.admit(later).is_ok());
}

#[test]
fn a_call_without_a_permit_can_close_the_circuit_during_a_probe_but_not_open_it() {
    let now = Instant::now();
    let breaker = opened(now);
    let later = now + OPEN_DURATION;
    let probe = breaker.admit(later).unwrap();
    assert_eq!(breaker.record(Outcome::Failure, later), None);
    assert_eq!(breaker.admit(later).unwrap_err(), Open { retry_after: PROBE_RETRY_AFTER });
    assert_eq!(breaker.record(Outcome::Success, later), Some(Transition::Closed));
    assert_eq!(probe.record(Outcome::Failure, later), None, "it is one failure of a closed circuit");
    assert!(breaker.admit(later).is_ok());
}

#[test]
fn a_probe_that_is_dropped_after_the_circuit_closed_leaves_it_closed() {
    let now = Instant::now();
    let breaker = opened(now);
    let probe = breaker.admit(now + OPEN_DURATION).unwrap();
    breaker.record(Outcome::Success, now + OPEN_DURATION);
    drop(probe);
    assert!(breaker.admit(now + OPEN_DURATION).is_ok());
    assert!(breaker.admit(now + OPEN_DURATION).is_ok());
}

#[test]
fn an_open_duration_past_the_end_of_the_clock_is_ignored() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(0, Duration::MAX);
    assert_eq!(breaker.record(Outcome::Failure, now), Some(Transition::Opened));
    assert!(breaker.admit(now).is_ok());
}
