//! Whether it makes sense to ask the object store just now.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// After so many requests in a row that came to nothing, the object store counts as away.
const FAILURES: u32 = 2;

/// How long it is not asked then by those who can do without. After that, one asks for all.
const REST: Duration = Duration::from_secs(2);

/// Remembers that the object store is away, so that not every client waits until that is found out again.
#[derive(Debug, Default)]
pub(super) struct Circuit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Circuit {
    /// Whether to ask. Who is told so after a rest asks for all, who are put off meanwhile.
    pub(super) fn is_closed(&self, now: Instant) -> bool {
        let mut state = self.state();
        match state.rests_until {
            Some(until) if now < until => false,
            Some(_) => {
                state.rests_until = Some(now + REST);
                true
            }
            None => true,
        }
    }

    pub(super) fn answered(&self) {
        *self.state() = State::default();
    }

    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.rests_until = Some(now + REST);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_two_failures_one_asks_at_a_time_until_there_is_an_answer() {
        let (circuit, begin) = (Circuit::default(), Instant::now());
        circuit.failed(begin);
        assert!(circuit.is_closed(begin));
        circuit.failed(begin);
        assert!(!circuit.is_closed(begin));
        let later = begin + REST;
        assert!(circuit.is_closed(later));
        assert!(!circuit.is_closed(later), "somebody asks already");
        circuit.failed(later);
        assert!(!circuit.is_closed(later));
        circuit.answered();
        assert!(circuit.is_closed(later));
        circuit.failed(later);
        assert!(circuit.is_closed(later), "the failures before the answer do not count");
    }
}
