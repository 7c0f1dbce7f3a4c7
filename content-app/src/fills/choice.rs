//! Which source is asked next, and when: the memory of what failed.

use std::time::Duration;

use upstream_client::UpstreamError;

use super::{download::DownloadError, error::FillError};
use crate::config::FillPolicy;

/// The sources of one fill, by index, and how they have done.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// Why a source is not asked again in this fill.
    out: Vec<Option<FillError>>,
    current: usize,
    failures: u32,
    last: FillError,
    /// A source that breaks is asked again before the next one is.
    steadfast: bool,
}

/// Attempts that bring no byte before a fill that has nothing yet fails: its clients are told soon.
const ATTEMPTS_AT_START: u32 = 3;

impl Rotation {
    /// All of `sources` may be asked.
    pub(crate) fn new(sources: usize) -> Self {
        Self {
            out: vec![None; sources],
            current: 0,
            failures: 0,
            last: FillError::NoSource,
            steadfast: false,
        }
    }

    /// Those of which there is none, though some are recorded.
    pub(crate) fn unconfigured() -> Self {
        Self { last: FillError::Unconfigured, ..Self::new(0) }
    }

    /// The source to ask now.
    ///
    /// # Errors
    /// None is left; the error is the one that the clients are told.
    pub(crate) fn current(&self) -> Result<usize, FillError> {
        let usable = |index: &usize| self.out.get(*index).is_some_and(Option::is_none);
        let sources = self.out.len();
        (0..sources).map(|step| (self.current + step) % sources).find(usable).ok_or_else(|| self.last.clone())
    }

    /// How many sources there are; an index below is one of them.
    pub(crate) fn sources(&self) -> usize {
        self.out.len()
    }

    /// Bytes came: earlier failures no longer count.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Records a failure of `source` and moves on to the next one.
    ///
    /// # Errors
    /// The attempts are used up, or the failure is not the source's.
    pub(crate) fn failed(
        &mut self,
        source: usize,
        error: &DownloadError,
        anything_landed: bool,
        policy: &FillPolicy,
    ) -> Result<Duration, FillError> {
        let (told, is_final) = match error {
            DownloadError::Local(error) => return Err(error.clone()),
            DownloadError::WrongSize => (FillError::WrongSize, true),
            DownloadError::Changed => {
                (FillError::Upstream(UpstreamError::invalid_response(error.to_string())), false)
            }
            DownloadError::Upstream(error) => (FillError::Upstream(error.clone()), is_final(error)),
        };
        // A 404 of the second source must not hide that the first one was only too busy.
        if weight(&told) >= weight(&self.last) {
            self.last = told.clone();
        }
        if is_final {
            self.strike(source, told);
        } else {
            self.failures += 1;
        }
        if is_final || !self.steadfast {
            self.current = (source + 1) % self.out.len().max(1);
        }
        let allowed = if anything_landed { policy.attempts } else { ATTEMPTS_AT_START.min(policy.attempts) };
        if self.failures >= allowed {
            return Err(self.last.clone());
        }
        self.current()?;
        Ok(policy.backoff(self.failures))
    }

    /// From now on a source that breaks is not left for the next one, so that wrong bytes tell who sent them.
    pub(crate) fn stay(&mut self) {
        self.steadfast = true;
    }

    /// A source that sent wrong bytes is not asked again in this fill.
    pub(crate) fn leave_out(&mut self, source: usize, error: FillError) {
        self.last = error.clone();
        self.strike(source, error);
    }

    fn strike(&mut self, source: usize, error: FillError) {
        if let Some(out) = self.out.get_mut(source) {
            *out = Some(error);
        }
    }
}

/// How much an error tells of why there is no blob: who was too busy may have it, who refuses may not say so.
fn weight(error: &FillError) -> u8 {
    match error {
        FillError::NoSource => 0,
        FillError::Upstream(UpstreamError::NotFound) => 1,
        FillError::Upstream(UpstreamError::Denied) => 2,
        _ => 3,
    }
}

/// Whether asking the same source again in this fill is pointless.
fn is_final(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::NotFound
        | UpstreamError::Denied
        | UpstreamError::RateLimited { .. }
        | UpstreamError::RangeNotSatisfiable
        | UpstreamError::DigestMismatch
        | UpstreamError::TooLarge
        | UpstreamError::Offline => true,
        UpstreamError::Server { .. }
        | UpstreamError::InvalidResponse(_)
        | UpstreamError::Timeout
        | UpstreamError::Unreachable(_)
        | UpstreamError::CircuitOpen { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> DownloadError {
        DownloadError::Upstream(UpstreamError::unreachable("reset"))
    }

    #[test]
    fn a_source_that_breaks_gives_way_to_the_next_and_comes_round_again() {
        let policy = FillPolicy::default();
        let mut rotation = Rotation::new(2);
        assert_eq!(rotation.current().unwrap(), 0);
        assert_eq!(rotation.failed(0, &broken(), true, &policy).unwrap(), policy.backoff_min);
        assert_eq!(rotation.current().unwrap(), 1);
        assert_eq!(rotation.failed(1, &broken(), true, &policy).unwrap(), policy.backoff_min * 2);
        assert_eq!(rotation.current().unwrap(), 0);
    }

    #[test]
    fn a_source_without_the_blob_is_not_asked_again_and_hides_no_better_reason() {
        let policy = FillPolicy::default();
        let mut rotation = Rotation::new(2);
        let limited = UpstreamError::RateLimited { retry_after: Some(Duration::from_secs(7)) };
        rotation.failed(0, &DownloadError::Upstream(limited), false, &policy).unwrap();
        for less in [UpstreamError::NotFound, UpstreamError::Denied] {
            let end = rotation.failed(1, &DownloadError::Upstream(less), false, &policy).unwrap_err();
            assert!(matches!(end, FillError::Upstream(UpstreamError::RateLimited { .. })), "{end:?}");
        }
    }

    #[test]
    fn attempts_are_bounded_and_progress_renews_them() {
        let policy = FillPolicy { attempts: 4, ..FillPolicy::default() };
        let mut rotation = Rotation::new(1);
        for _ in 0..3 {
            rotation.failed(0, &broken(), true, &policy).unwrap();
        }
        rotation.progressed();
        for _ in 0..3 {
            rotation.failed(0, &broken(), true, &policy).unwrap();
        }
        assert!(rotation.failed(0, &broken(), true, &policy).is_err());
        assert!(Rotation::new(0).current().is_err());
    }
}
