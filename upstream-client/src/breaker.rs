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
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { since: Instant },
    Probing,
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
        Self { failures: failures.max(1), open_for, state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Asks for leave to make a call at `now`.
    pub(crate) fn admit(&self, now: Instant) -> Result<Permit<'_>, UpstreamError> {
        let mut state = self.lock();
        let probe = match *state {
            State::Closed { .. } => false,
            State::Open { since } => match self.left(since, now) {
                Some(retry_after) => return Err(UpstreamError::CircuitOpen { retry_after }),
                None => true,
            },
            State::Probing => return Err(UpstreamError::CircuitOpen { retry_after: WHILE_PROBING }),
        };
        if probe {
            *state = State::Probing;
        }
        Ok(Permit { breaker: self, probe, settled: false })
    }

    /// How long no call will be let through, if the circuit is open at `now`.
    pub(crate) fn open_for(&self, now: Instant) -> Option<Duration> {
        match *self.lock() {
            State::Open { since } => self.left(since, now),
            State::Closed { .. } | State::Probing => None,
        }
    }

    fn left(&self, since: Instant, now: Instant) -> Option<Duration> {
        self.open_for.checked_sub(now.saturating_duration_since(since)).filter(|left| !left.is_zero())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// Reports how the call went. True when this opened the circuit.
    pub(crate) fn settle(mut self, failed: bool, now: Instant) -> bool {
        self.settled = true;
        let mut state = self.breaker.lock();
        let next = match (*state, self.probe) {
            (_, true) if failed => State::Open { since: now },
            (_, true) => State::Closed { failures: 0 },
            (State::Closed { failures }, false) if failed => match failures.saturating_add(1) {
                failures if failures >= self.breaker.failures => State::Open { since: now },
                failures => State::Closed { failures },
            },
            (State::Closed { .. }, false) => State::Closed { failures: 0 },
            // A call from before the circuit opened: what it met is no news.
            (later, false) => later,
        };
        let opened = matches!(next, State::Open { .. }) && !matches!(*state, State::Open { .. });
        *state = next;
        opened
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe && !self.settled {
            // The next call becomes the probe: an open circuit whose time is over.
            let long_ago = Instant::now().checked_sub(self.breaker.open_for);
            *self.breaker.lock() = match long_ago {
                Some(since) => State::Open { since },
                None => State::Closed { failures: self.breaker.failures.saturating_sub(1) },
            };
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
            assert_eq!(breaker.admit(now).unwrap().settle(true, now), attempt == 3);
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
        assert!(probe.settle(true, later));
        assert!(breaker.admit(later).is_err());
        breaker.admit(later + OPEN_FOR).unwrap().settle(false, later + OPEN_FOR);
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
}
