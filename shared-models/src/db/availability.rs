//! Whether the database is available, and since when.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The observed availability of the database.
#[derive(Debug, Default)]
pub(crate) struct Availability(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the current outage began.
    outage_since: Option<Instant>,
    /// When the last outage ended, and its duration.
    last_outage: Option<(Instant, Duration)>,
}

/// A change of the availability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The database became unavailable.
    Lost,
    /// It became available again.
    Recovered,
}

impl Availability {
    /// Records whether a query reached the database.
    pub(crate) fn observe(&self, is_available: bool) -> Option<Change> {
        let mut state = self.0.lock();
        match (is_available, state.outage_since) {
            (false, None) => {
                state.outage_since = Some(Instant::now());
                Some(Change::Lost)
            }
            (true, Some(since)) => {
                state.outage_since = None;
                state.last_outage = Some((Instant::now(), since.elapsed()));
                Some(Change::Recovered)
            }
            _ => None,
        }
    }

    /// Whether the last query reached the database.
    pub(crate) fn is_available(&self) -> bool {
        self.0.lock().outage_since.is_none()
    }

    /// The duration of the current outage, or of one that ended within `within`; 0 if there is
    /// neither.
    pub(crate) fn recent_outage(&self, within: Duration) -> Duration {
        let state = self.0.lock();
        let ended = state.last_outage.filter(|(at, _)| at.elapsed() <= within);
        let running = state.outage_since.map(|since| since.elapsed());
        running.or(ended.map(|(_, duration)| duration)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_begins_and_ends_once_and_is_remembered_for_a_time() {
        let availability = Availability::default();
        assert_eq!((availability.observe(true), availability.is_available()), (None, true));
        assert_eq!(availability.observe(false), Some(Change::Lost));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!((availability.observe(false), availability.is_available()), (None, false));
        assert_eq!(availability.recent_outage(Duration::ZERO), Duration::from_secs(7));
        assert_eq!(availability.observe(true), Some(Change::Recovered));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(availability.recent_outage(Duration::from_secs(5)), Duration::from_secs(7));
        assert_eq!(availability.recent_outage(Duration::from_secs(4)), Duration::ZERO);
    }
}
