//! One log line when calls begin to fail for a cause, and one when they no longer do.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{UpstreamError, clock};

/// The causes for which calls to an upstream fail, by their text, with the time of the last failure.
#[derive(Debug, Default)]
pub(crate) struct FailureLog(Mutex<HashMap<String, Instant>>);

/// The maximum number of causes. Texts contain host names, which other hosts choose; further causes are not logged.
const MAX_CAUSES: usize = 32;

/// How long no call has failed for a cause that has ended. Calls for one repository may fail while others succeed.
const QUIET_TIME: Duration = Duration::from_mins(1);

impl FailureLog {
    /// Records the result of a call, and logs the cause that begins with it or those that have ended.
    pub(crate) fn record<T>(&self, upstream: &str, result: &Result<T, UpstreamError>) {
        match result {
            Err(error) if error.is_of_upstream() => {
                if self.begins(error.to_string()) {
                    tracing::warn!(upstream, %error, "requests to the upstream fail");
                }
            }
            Err(_) => {}
            Ok(_) => {
                for error in self.ended() {
                    tracing::warn!(upstream, error, "requests to the upstream no longer fail");
                }
            }
        }
    }

    /// Records a failure. Returns whether it is the first one for its cause.
    fn begins(&self, cause: String) -> bool {
        let mut causes = self.0.lock();
        if let Some(last) = causes.get_mut(&cause) {
            *last = clock::now();
            return false;
        }
        if causes.len() >= MAX_CAUSES {
            return false;
        }
        causes.insert(cause, clock::now());
        true
    }

    /// Removes the causes that have ended.
    fn ended(&self) -> Vec<String> {
        let mut causes = self.0.lock();
        if causes.is_empty() {
            return Vec::new();
        }
        let now = clock::now();
        causes.extract_if(|_, last| now.duration_since(*last) >= QUIET_TIME).map(|(cause, _)| cause).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cause_begins_once_and_ends_once() {
        let log = FailureLog::default();
        assert!(log.begins("a".to_owned()));
        assert!(!log.begins("a".to_owned()));
        assert!(log.begins("b".to_owned()));
        assert!(log.ended().is_empty());
        tokio::time::advance(QUIET_TIME / 2).await;
        assert!(!log.begins("b".to_owned()));
        tokio::time::advance(QUIET_TIME / 2).await;
        assert_eq!(log.ended(), ["a"]);
        assert!(log.ended().is_empty());
        assert!(log.begins("a".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_causes_is_bounded() {
        let log = FailureLog::default();
        let begun = (0..2 * MAX_CAUSES).filter(|number| log.begins(number.to_string())).count();
        assert_eq!(begun, MAX_CAUSES);
        tokio::time::advance(QUIET_TIME).await;
        assert_eq!(log.ended().len(), MAX_CAUSES);
    }
}
