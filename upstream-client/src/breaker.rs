//! The circuit breaker: an upstream that fails again and again is left alone for a while.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::UpstreamError;

/// How long those who meet a running probe are told to wait: its outcome is near.
const WHILE_PROBING: Duration = Duration::from_secs(1);

/// Closed until `failures` calls in a row fail; then open for a while; then one probe decides.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures: u32,
    open_for: Duration,
    circuit: Mutex<Circuit>,
}

#[derive(Debug)]
struct Circuit {
    state: State,
    last_success: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

/// What a call has done to the circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Opened,
    Closed,
}

/// Leave to make one call. Dropped unsettled (the call was abandoned), it says nothing of the upstream.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    probe: bool,
    settled: bool,
}

impl Breaker {
    pub(crate) fn new(failures: u32, open_for: Duration) -> Self {
        let circuit = Circuit { state: State::Closed { failures: 0 }, last_success: None };
        Self { failures: failures.max(1), open_for, circuit: Mutex::new(circuit) }
    }

    /// Asks for leave to make a call at `now`.
    pub(crate) fn admit(&self, now: Instant) -> Result<Permit<'_>, UpstreamError> {
        let mut circuit = self.lock();
        let probe = match circuit.state {
            State::Closed { .. } => false,
            State::Open { until } => match left(until, now) {
                Some(retry_after) => return Err(UpstreamError::CircuitOpen { retry_after }),
                None => true,
            },
            State::Probing => return Err(UpstreamError::CircuitOpen { retry_after: WHILE_PROBING }),
        };
        if probe {
            circuit.state = State::Probing;
        }
        Ok(Permit { breaker: self, probe, settled: false })
    }

    /// How long no call will be let through, if the circuit is open at `now`.
    pub(crate) fn open_for(&self, now: Instant) -> Option<Duration> {
        match self.lock().state {
            State::Open { until } => left(until, now),
            State::Closed { .. } | State::Probing => None,
        }
    }

    /// When a call last went well.
    pub(crate) fn last_success(&self) -> Option<Instant> {
        self.lock().last_success
    }

    /// Opens the circuit for what is left of another process's, no longer than one of its own would be. A probe that
    /// runs decides all the same.
    pub(crate) fn open(&self, left: Duration, now: Instant) {
        let Some(theirs) = now.checked_add(left.min(self.open_for)) else { return };
        let mut circuit = self.lock();
        circuit.state = match circuit.state {
            State::Probing => State::Probing,
            State::Open { until } => State::Open { until: until.max(theirs) },
            State::Closed { .. } => State::Open { until: theirs },
        };
    }

    fn opened(&self, now: Instant) -> State {
        // A time that no clock reaches is none.
        State::Open { until: now.checked_add(self.open_for).unwrap_or(now) }
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn left(until: Instant, now: Instant) -> Option<Duration> {
    until.checked_duration_since(now).filter(|left| !left.is_zero())
}

impl Permit<'_> {
    /// Reports how the call went. Says when this turned the circuit.
    pub(crate) fn settle(mut self, failed: bool, now: Instant) -> Option<Turn> {
        self.settled = true;
        let breaker = self.breaker;
        let mut circuit = breaker.lock();
        if !failed {
            circuit.last_success = Some(now);
        }
        let (next, turn) = match (circuit.state, self.probe) {
            (_, true) if failed => (breaker.opened(now), Some(Turn::Opened)),
            (_, true) => (State::Closed { failures: 0 }, Some(Turn::Closed)),
            (State::Closed { failures }, false) if failed => match failures.saturating_add(1) {
                failures if failures >= breaker.failures => (breaker.opened(now), Some(Turn::Opened)),
                failures => (State::Closed { failures }, None),
            },
            (State::Closed { .. }, false) => (State::Closed { failures: 0 }, None),
            // A call from before the circuit opened: what it met is no news.
            (later, false) => (later, None),
        };
        circuit.state = next;
        turn
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe && !self.settled {
            // The next call becomes the probe: an open circuit whose time is over.
            self.breaker.lock().state = State::Open { until: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(10);

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(3, OPEN_FOR);
        for attempt in 1..=3 {
            let turn = breaker.admit(now).unwrap().settle(true, now);
            assert_eq!(turn, (attempt == 3).then_some(Turn::Opened));
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let now = Instant::now();
        let breaker = Breaker::new(3, OPEN_FOR);
        for failed in [true, true, false, true, true] {
            breaker.admit(now).unwrap().settle(failed, now);
        }
        assert!(breaker.admit(now).is_ok());
        assert_eq!(opened(now).open_for(now), Some(OPEN_FOR));
    }

    #[test]
    fn an_open_circuit_says_how_long_it_stays_open() {
        let now = Instant::now();
        let error = opened(now).admit(now + Duration::from_secs(4)).unwrap_err();
        assert_eq!(error, UpstreamError::CircuitOpen { retry_after: Duration::from_secs(6) });
    }

    #[test]
    fn one_probe_at_a_time_decides() {
        let now = Instant::now();
        let breaker = opened(now);
        let later = now + OPEN_FOR;
        let probe = breaker.admit(later).unwrap();
        assert_eq!(
            breaker.admit(later).unwrap_err(),
            UpstreamError::CircuitOpen { retry_after: WHILE_PROBING }
        );
        assert_eq!(probe.settle(true, later), Some(Turn::Opened));
        assert!(breaker.admit(later).is_err());
        let turn = breaker.admit(later + OPEN_FOR).unwrap().settle(false, later + OPEN_FOR);
        assert_eq!(turn, Some(Turn::Closed));
        let (_one, _other) =
            (breaker.admit(later + OPEN_FOR).unwrap(), breaker.admit(later + OPEN_FOR).unwrap());
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let now = Instant::now();
        let breaker = opened(now);
        drop(breaker.admit(now + OPEN_FOR).unwrap());
        assert!(breaker.admit(now + OPEN_FOR).is_ok());
    }

    #[test]
    fn a_call_from_before_the_opening_does_not_close_it() {
        let now = Instant::now();
        let breaker = Breaker::new(1, OPEN_FOR);
        let early = breaker.admit(now).unwrap();
        breaker.admit(now).unwrap().settle(true, now);
        early.settle(false, now);
        assert!(breaker.admit(now).is_err());
    }

    #[test]
    fn what_opened_elsewhere_opens_here_for_what_is_left_of_it() {
        let now = Instant::now();
        let breaker = Breaker::new(3, OPEN_FOR);
        breaker.open(Duration::from_secs(4), now);
        assert_eq!(breaker.open_for(now), Some(Duration::from_secs(4)));
        breaker.open(Duration::from_secs(2), now);
        assert_eq!(breaker.open_for(now), Some(Duration::from_secs(4)), "it is never made shorter");
        breaker.open(Duration::from_secs(3600), now);
        assert_eq!(breaker.open_for(now), Some(OPEN_FOR), "nor longer than its own would be");
        let later = now + OPEN_FOR;
        let probe = breaker.admit(later).unwrap();
        breaker.open(OPEN_FOR, later);
        assert_eq!(breaker.open_for(later), None, "a probe runs");
        assert_eq!(probe.settle(false, later), Some(Turn::Closed));
        assert_eq!(breaker.last_success(), Some(later));
    }
}
