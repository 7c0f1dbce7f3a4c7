//! The permission to make one call.

use std::time::Instant;

use crate::{CircuitBreaker, Outcome, State, Transition};

/// The permission to make one call. A permit that is dropped without a recorded outcome (the call was cancelled) has no
/// effect on the circuit; a dropped probe makes the next call the probe.
#[derive(Debug)]
#[must_use = "a dropped permit records nothing"]
pub struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    /// Time at which the probe was admitted; `None` for a call through a closed circuit.
    probe_since: Option<Instant>,
    recorded: bool,
}

impl<'a> Permit<'a> {
    pub(crate) fn new(breaker: &'a CircuitBreaker, probe_since: Option<Instant>) -> Self {
        Self { breaker, probe_since, recorded: false }
    }

    /// Records the outcome of the call, which ended at `now`.
    pub fn record(mut self, outcome: Outcome, now: Instant) -> Option<Transition> {
        self.recorded = true;
        let mut circuit = self.breaker.circuit.lock();
        let (next, transition) = match (circuit.state, self.probe_since, outcome) {
            (State::Closed { consecutive_failures }, _, _) => {
                self.breaker.count(consecutive_failures, outcome, now)
            }
            (_, Some(_), Outcome::Success) => CircuitBreaker::closed(),
            (_, Some(_), Outcome::Failure) => (self.breaker.opened(now), Some(Transition::Opened)),
            // The call began before the circuit opened: its outcome is out of date.
            (state, None, _) => (state, None),
        };
        circuit.enter(next, outcome, now);
        transition
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let (Some(since), false) = (self.probe_since, self.recorded) {
            let mut circuit = self.breaker.circuit.lock();
            if matches!(circuit.state, State::HalfOpen) {
                // Open until a time in the past: the next call is the probe.
                circuit.state = State::Open { until: since };
            }
        }
    }
}
