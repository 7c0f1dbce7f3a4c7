//! A circuit breaker for calls to a remote service.
//!
//! The circuit is *closed* until a number of consecutive calls fail. It is then *open* for a fixed time, during which
//! no call is admitted. After that it is *half-open*: one call, the probe, is admitted, and its outcome closes the
//! circuit or opens it again.
//!
//! The crate reads no clock: every method takes the current time, so that tests need not wait.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use circuit_breaker::{CircuitBreaker, Outcome, Transition};
//!
//! let breaker = CircuitBreaker::new(2, Duration::from_secs(10));
//! let now = Instant::now();
//! for _ in 0..2 {
//!     let permit = breaker.admit(now)?;
//!     // … the call fails …
//!     permit.record(Outcome::Failure, now);
//! }
//! assert_eq!(breaker.admit(now).unwrap_err().retry_after, Duration::from_secs(10));
//!
//! let later = now + Duration::from_secs(10);
//! let probe = breaker.admit(later)?;
//! assert_eq!(probe.record(Outcome::Success, later), Some(Transition::Closed));
//! # Ok::<(), circuit_breaker::Open>(())
//! ```

mod permit;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use permit::Permit;

/// `retry_after` of a call that is rejected while a probe is in flight: the probe ends soon.
const PROBE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The circuit breaker of one remote service, shared by all calls to it.
#[derive(Debug)]
pub struct CircuitBreaker {
    failure_threshold: u32,
    open_duration: Duration,
    circuit: Mutex<Circuit>,
}

#[derive(Debug)]
struct Circuit {
    state: State,
    last_success: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { consecutive_failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The service answered.
    Success,
    /// The service did not answer, or reported a failure of its own.
    Failure,
}

/// A change of the circuit that a recorded outcome caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// From closed or half-open to open.
    Opened,
    /// From open or half-open to closed.
    Closed,
}

/// The circuit is open, or half-open with a probe in flight: the call is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("circuit is open")]
pub struct Open {
    /// Time until a call may be admitted again.
    pub retry_after: Duration,
}

impl CircuitBreaker {
    /// A closed circuit that opens for `open_duration` after `failure_threshold` consecutive failures (at least one).
    pub fn new(failure_threshold: u32, open_duration: Duration) -> Self {
        let circuit = Circuit { state: State::Closed { consecutive_failures: 0 }, last_success: None };
        Self { failure_threshold: failure_threshold.max(1), open_duration, circuit: Mutex::new(circuit) }
    }

    /// Admits a call that begins at `now`. The permit of a half-open circuit's probe blocks all other calls until its
    /// outcome is recorded or it is dropped.
    ///
    /// # Errors
    /// [`Open`] when the circuit is open or a probe is in flight.
    pub fn admit(&self, now: Instant) -> Result<Permit<'_>, Open> {
        let mut circuit = self.circuit.lock();
        match circuit.state {
            State::Closed { .. } => Ok(Permit::new(self, None)),
            State::Open { until } => match remaining(until, now) {
                Some(retry_after) => Err(Open { retry_after }),
                None => {
                    circuit.state = State::HalfOpen;
                    Ok(Permit::new(self, Some(now)))
                }
            },
            State::HalfOpen => Err(Open { retry_after: PROBE_RETRY_AFTER }),
        }
    }

    /// Records the outcome of a call that ended at `now` and was made without a permit, because its caller has no
    /// alternative to calling. A success closes the circuit, a failure keeps an open one open from `now` on. A probe
    /// in flight is not preempted by a failure.
    pub fn record(&self, outcome: Outcome, now: Instant) -> Option<Transition> {
        let mut circuit = self.circuit.lock();
        let (next, transition) = match (circuit.state, outcome) {
            (State::Closed { consecutive_failures }, _) => self.count(consecutive_failures, outcome, now),
            (State::Open { .. } | State::HalfOpen, Outcome::Success) => Self::closed(),
            (State::Open { .. }, Outcome::Failure) => (self.opened(now), None),
            (State::HalfOpen, Outcome::Failure) => (State::HalfOpen, None),
        };
        circuit.enter(next, outcome, now);
        transition
    }

    /// Opens the circuit for `remaining`, the remaining open time of another process's circuit for
    /// the same service, limited to the open duration of this circuit. The open time is never
    /// shortened, and the outcome of a probe in flight still applies.
    pub fn open(&self, remaining: Duration, now: Instant) {
        let Some(other) = now.checked_add(remaining.min(self.open_duration)) else { return };
        let mut circuit = self.circuit.lock();
        circuit.state = match circuit.state {
            State::HalfOpen => State::HalfOpen,
            State::Open { until } => State::Open { until: until.max(other) },
            State::Closed { .. } => State::Open { until: other },
        };
    }

    /// Time until the open circuit becomes half-open; `None` when it is not open at `now`.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        match self.circuit.lock().state {
            State::Open { until } => remaining(until, now),
            State::Closed { .. } | State::HalfOpen => None,
        }
    }

    /// Time of the last recorded success.
    pub fn last_success(&self) -> Option<Instant> {
        self.circuit.lock().last_success
    }

    /// The next state of a closed circuit.
    fn count(
        &self,
        consecutive_failures: u32,
        outcome: Outcome,
        now: Instant,
    ) -> (State, Option<Transition>) {
        let consecutive_failures = match outcome {
            Outcome::Success => 0,
            Outcome::Failure => consecutive_failures.saturating_add(1),
        };
        if consecutive_failures >= self.failure_threshold {
            (self.opened(now), Some(Transition::Opened))
        } else {
            (State::Closed { consecutive_failures }, None)
        }
    }

    /// Saturates: an open duration past the end of the clock does not keep the circuit open.
    fn opened(&self, now: Instant) -> State {
        State::Open { until: now.checked_add(self.open_duration).unwrap_or(now) }
    }

    fn closed() -> (State, Option<Transition>) {
        (State::Closed { consecutive_failures: 0 }, Some(Transition::Closed))
    }
}

impl Circuit {
    fn enter(&mut self, next: State, outcome: Outcome, now: Instant) {
        if outcome == Outcome::Success {
            self.last_success = Some(now);
        }
        self.state = next;
    }
}

fn remaining(until: Instant, now: Instant) -> Option<Duration> {
    until.checked_duration_since(now).filter(|remaining| !remaining.is_zero())
}
